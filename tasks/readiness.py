"""A deploy has succeeded when every model has given a real answer, not when its port is open."""

from pyinfra import host

from stoker.operations.ready import ready
from stoker.run.session import session


def every_model_answers() -> None:
    ready(name="Every model answers", run=session(), host_name=host.name)

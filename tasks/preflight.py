"""Refuse what cannot work before anything is written anywhere."""

from pyinfra import host

from stoker.operations.preflight import barrier
from stoker.run.session import session


def verdict() -> None:
    """A refusal on one host, or a host that cannot be reached, stops the run for all."""
    barrier(name="Preflight", run=session(), host_name=host.name)

"""The container engine."""

from pyinfra import host

from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import docker


def engine() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="Docker", run=run, step=lambda state: docker.actions(described, state), reloads=True, needs_gpus=False
    )

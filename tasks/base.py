"""Package repositories, and what a bare distribution lacks."""

from pyinfra import host

from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import base, sources


def package_sources() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(name="Package sources", run=run, step=lambda state: sources.actions(described, state), needs_gpus=False)


def packages() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(name="Base packages", run=run, step=lambda state: base.actions(described, state), needs_gpus=False)

"""The entry points run the configuration that stands on the disk."""

from pyinfra import host

from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import gateway


def configuration() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="Gateway configuration",
        run=run,
        step=lambda state: [
            action
            for stack in described.stacks
            if not run.only
            for action in gateway.actions(run.fleet, described, stack, state)
        ],
    )

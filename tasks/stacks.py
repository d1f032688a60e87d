"""Compose projects: their files, then their containers."""

from pyinfra import host

from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import stack as steps


def files() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="Stack files",
        run=run,
        step=lambda state: [
            action for stack in described.stacks for action in steps.file_actions(run.fleet, described, stack, state)
        ],
    )


def containers() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="Containers",
        run=run,
        step=lambda state: [
            *([] if run.only else steps.forgotten(described, state)),
            *(
                action
                for stack in described.stacks
                for action in steps.container_actions(described, stack, state, run.only)
            ),
        ],
    )

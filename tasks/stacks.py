"""Compose projects: their files, then their containers."""

from pyinfra import host

from stoker.facts.state import HostState
from stoker.operations.converge import converge
from stoker.run.session import Session, session
from stoker.spec.stack import Stack
from stoker.steps import adopt
from stoker.steps import stack as steps
from stoker.steps.action import Action


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
                for action in [
                    *_make_way(run, stack, state),
                    *steps.container_actions(described, stack, state, run.only),
                    *([] if run.only else steps.note_actions(described, stack, state)),
                ]
            ),
        ],
    )


def _make_way(run: Session, stack: Stack, state: HostState) -> list[Action]:
    """Only `stoker adopt` replaces what was made by hand; the preflight of any other run has refused it."""
    if host.name not in run.adopting:
        return []
    return adopt.make_way(run.fleet.host(host.name), stack, state, run.only, run.adopting[host.name])

"""The container engine."""

from pyinfra import host

from stoker.facts.state import HostState
from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import adopt, docker
from stoker.steps.action import Action


def engine() -> None:
    run = session()
    described = run.fleet.host(host.name)

    def step(state: HostState) -> list[Action]:
        actions = docker.actions(described, state)
        return adopt.and_start_again(described, state, actions) if host.name in run.adopting else actions

    converge(name="Docker", run=run, step=step, reloads=True, needs_gpus=False)

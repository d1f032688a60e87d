"""GPUs for containers."""

from pyinfra import host

from stoker.facts.state import HostState
from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import adopt, images, toolkit
from stoker.steps import driver as driver_steps
from stoker.steps.action import Action


def driver() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(name="NVIDIA driver", run=run, step=lambda state: driver_steps.actions(described, state), needs_gpus=False)


def container_toolkit() -> None:
    run = session()
    described = run.fleet.host(host.name)

    def step(state: HostState) -> list[Action]:
        actions = toolkit.actions(described, state)
        return adopt.and_start_again(described, state, actions) if host.name in run.adopting else actions

    converge(name="NVIDIA container toolkit", run=run, step=step, reloads=True)


def cards_in_containers() -> None:
    run = session()
    described = run.fleet.host(host.name).only(run.only)
    converge(name="GPUs in containers", run=run, step=lambda state: images.probes(described, state))

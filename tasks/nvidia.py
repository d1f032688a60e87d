"""GPUs for containers."""

from pyinfra import host

from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import driver as driver_steps
from stoker.steps import images, toolkit


def driver() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(name="NVIDIA driver", run=run, step=lambda state: driver_steps.actions(described, state), needs_gpus=False)


def container_toolkit() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(
        name="NVIDIA container toolkit", run=run, step=lambda state: toolkit.actions(described, state), reloads=True
    )


def cards_in_containers() -> None:
    run = session()
    described = run.fleet.host(host.name).only(run.only)
    converge(name="GPUs in containers", run=run, step=lambda state: images.probes(described, state))

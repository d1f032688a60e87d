"""For commands that need a lab that is up."""

from __future__ import annotations

from lab.machines import daemon, hosts, marker, network
from lab.machines.config import Lab, Machine
from lab.machines.errors import LabError


def need_lab(lab: Lab) -> None:
    """Raise LabError unless this checkout's lab is up."""
    if not marker.is_up() or not network.exists(lab.network) or not daemon.running():
        raise LabError("the lab is not up; start it with lab/up")


def need_made(machine: Machine) -> None:
    """Raise LabError for a host on demand that nobody has asked for."""
    if hosts.container_state(machine) == "absent":
        raise LabError(machine.how_to_start)

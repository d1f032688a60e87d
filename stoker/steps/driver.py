"""The NVIDIA driver, where installing it is asked for (``nvidia = {"install_driver": True}``).

Not tried on a machine with a card; the packages are those of Ubuntu's archive.
"""

from __future__ import annotations

from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps.action import Action, Say, Shell
from stoker.steps.packages import Package, install

_HEADERS = Package("linux-headers-generic")


def can_be_installed(state: HostState) -> bool:
    """Only where the distribution's own archive holds the branch, and only where no driver is there at all."""
    missing = "not installed" in state.gpu_error or "not found" in state.gpu_error
    return missing and state.os_id == "ubuntu"


def package(host: Host) -> Package:
    """The proprietary driver: the open kernel modules know no card before Turing."""
    return Package(f"nvidia-driver-{host.settings.versions.driver_branch}-server")


def awaited(host: Host, state: HostState) -> bool:
    """Whether the host has no driver yet and this deploy is to install it; nothing can be said of its cards until then."""
    return bool(state.gpu_error) and host.settings.nvidia.install_driver and can_be_installed(state)


def actions(host: Host, state: HostState) -> list[Action]:
    if not awaited(host, state):
        return []
    # The driver is held: an unattended step to a later branch would take Volta and Pascal cards away. The headers are
    # not: without those of a new kernel the driver's module could not be built for it.
    return [install([_HEADERS]), install([package(host)], hold=True), Action("load the driver", function=_load)]


def _load(shell: Shell, say: Say) -> str | None:
    ok, lines = shell("modprobe nvidia && nvidia-smi -L")
    if ok:
        return None
    return f"the driver is installed and cannot be loaded yet ({' '.join(lines)[-300:]}); reboot the host, then deploy again"

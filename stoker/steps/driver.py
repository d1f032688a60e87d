"""The NVIDIA driver, installed where that is asked for (``nvidia = {"install_driver": True}``), and kept where it is.

Not tried on a machine with a card. The packages are those of Ubuntu's archive; on Debian, whose own driver is of another branch
(bookworm 535, trixie 550), those of NVIDIA's repository without the parts for a screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stoker.facts.gpus import trouble
from stoker.facts.paths import HOST_STATE
from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps import driver_hold
from stoker.steps.action import Action, Say, Shell
from stoker.steps.packages import Package, install
from stoker.steps.reboot import reboot

#: There from the reboot for the driver until the driver is loaded; holds the boot that came before. Another reboot does not follow.
MARKER = f"{HOST_STATE}/driver-reboot"


@dataclass(frozen=True)
class Release:
    """NVIDIA's repository for a release of Debian: its directory, and its key's file and fingerprint."""

    directory: str
    key_file: str
    key: str


#: By codename. Directories and keys as public installation recipes that check the fingerprint have them (2026); not fetched from here.
RELEASES: Mapping[str, Release] = {
    "bookworm": Release("debian12/x86_64", "3bf863cc.pub", "EB693B3035CD5710E231E123A4B469963BF863CC"),
    "trixie": Release("debian13/x86_64", "8793F200.pub", "02182E60104FCDC26EAE1B8597A5D4CB8793F200"),
}

#: Written by stoker/steps/sources.py while the driver comes from NVIDIA's repository.
REPOSITORY = "nvidia-cuda"

_LOAD = "modprobe nvidia 2>&1 && nvidia-smi -L"

#: modprobe's words when Secure Boot does not know the key that the module was signed with. A reboot changes nothing about that.
_UNSIGNED = "Key was rejected by service"


def can_be_installed(state: HostState) -> bool:
    """Only where it is known from where, and only where no driver is there at all."""
    known = state.os_id == "ubuntu" or (state.os_id == "debian" and state.os_codename in RELEASES)
    return known and trouble(state.gpu_error) == "not-installed"


def rebooted(state: HostState) -> bool:
    """Whether the host was rebooted for its driver already, and that did not help."""
    return bool(state.contents.get(MARKER, "").strip())


def awaited(host: Host, state: HostState) -> bool:
    """Whether this deploy is to install the host's driver, or to load what an earlier one installed; nothing can be said of its cards until then."""
    if host.gpus is None or not state.gpu_error or not host.settings.nvidia.install_driver or rebooted(state):
        return False
    installed = trouble(state.gpu_error) == "not-loaded" and bool(driver_hold.of_branch(host, state))
    return installed or can_be_installed(state)


def release(host: Host, state: HostState) -> Release | None:
    """Where the driver comes from, if from NVIDIA's repository: while it is awaited, and as long as apt has the source."""
    if host.gpus is None or state.os_id != "debian" or not host.settings.nvidia.install_driver:
        return None
    used = awaited(host, state) or f"/etc/apt/sources.list.d/{REPOSITORY}.sources" in state.files
    return RELEASES.get(state.os_codename) if used else None


def packages(host: Host, state: HostState) -> tuple[list[Package], list[Package]]:
    """What the kernel needs, and the proprietary driver: the open kernel modules know no card before Turing."""
    if state.os_id == "ubuntu":
        branch = host.settings.versions.driver_branch
        return [Package("linux-headers-generic")], [Package(f"nvidia-driver-{branch}-server")]
    # Kernel and headers of one version: the module is built for the kernel that the next boot takes. The pin chooses the branch.
    kernel = [Package("linux-image-amd64"), Package("linux-headers-amd64")]
    return kernel, [Package("nvidia-driver-cuda"), Package("nvidia-kernel-dkms")]


def actions(host: Host, state: HostState) -> list[Action]:
    if host.gpus is None:
        return []
    if not awaited(host, state):
        stale = [Action(f"remove {MARKER}: the driver is loaded", f"rm -f {MARKER}")] if _proved(state) else []
        return stale + driver_hold.actions(host, state)
    load = Action(
        "load the driver, with one reboot if it does not load without",
        function=_load,
        interrupts="everything on the host if it has to be rebooted",
    )
    if not can_be_installed(state):
        return [*driver_hold.actions(host, state), load]
    kernel, driver = packages(host, state)
    # The driver is held: an unattended step to a later branch would take Volta and Pascal cards away. Kernel and headers are
    # not: without the headers of a new kernel the driver's module could not be built for it.
    return [
        *driver_hold.pin(host, state),
        install(kernel),
        install(driver, hold=True),
        driver_hold.hold(host, "every package of the driver"),
        load,
    ]


def _proved(state: HostState) -> bool:
    return rebooted(state) and not state.gpu_error and bool(state.gpus)


def _load(shell: Shell, say: Say) -> str | None:
    ok, said = shell(_LOAD)
    if ok:
        return None
    why = " ".join(said)[-300:]
    if _UNSIGNED in why:
        return (
            f"the driver is installed and the kernel refuses its module ({why}): Secure Boot is on and does not know the module's key; "
            "enrol the key (mokutil --import) or turn Secure Boot off, then deploy again"
        )
    say(f"the driver is installed and cannot be loaded yet ({why}); rebooting, once")
    ok, said = shell(f"mkdir -p {HOST_STATE} && cat /proc/sys/kernel/random/boot_id >{MARKER}")
    error = reboot(shell, say) if ok else f"{MARKER} could not be written: {' '.join(said)[-300:]}"
    if error:
        return error
    ok, said = shell(_LOAD)
    if not ok:
        _, about = shell(
            "lsmod | grep -i nouveau; dkms status 2>/dev/null; dmesg | grep -iE 'nvrm|nvidia' | tail -n 5; true"
        )
        return (
            f"the driver does not load after a reboot either ({' '.join(said)[-300:]}); the host says: {' | '.join(about)[-600:]}. "
            f"It is not rebooted again; when the cause is mended, remove {MARKER} there and deploy"
        )
    shell(f"rm -f {MARKER}")
    return None

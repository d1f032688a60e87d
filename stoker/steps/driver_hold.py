"""The driver's packages stay on the described branch: held, and every other branch kept away by a pin.

The hold stops an upgrade; the pin also stops what is installed later from pulling in another branch: NVIDIA's own
`cuda-drivers-580` for Debian asks for 580 *or later* (forums.developer.nvidia.com/t/353805).
"""

from __future__ import annotations

import shlex
from fnmatch import fnmatchcase

from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps.action import Action, File, write_files

PREFERENCES = "/etc/apt/preferences.d"
PIN = f"{PREFERENCES}/stoker-nvidia"

#: What is asked of dpkg: everything that may be a part of a driver. What is one has the driver's own version.
PATTERNS = ("cuda-drivers*", "firmware-nvidia-*", "libcuda1", "libnvidia-*", "nvidia-*")

#: Packages of which a host has one exactly when its driver was installed by packages (Ubuntu, Debian, NVIDIA's repository).
_DRIVERS = (
    "cuda-drivers*",
    "nvidia-dkms-*",
    "nvidia-driver",
    "nvidia-driver-*",
    "nvidia-headless-*",
    "nvidia-kernel-*",
    "nvidia-open*",
)

#: Names in apt's globs: everything that is taken from the branch, what decides the branch, and the open kernel modules.
_ALL = f"{' '.join(PATTERNS)} libegl-nvidia* libgl*-nvidia* libnv* xserver-xorg-video-nvidia*"
_DECISIVE = (
    "cuda-drivers* libcuda1 libnvidia-compute-* nvidia-dkms* nvidia-driver nvidia-driver-[0-9]* nvidia-driver-cuda* "
    "nvidia-headless-* nvidia-kernel-dkms nvidia-kernel-source* nvidia-kernel-support nvidia-smi nvidia-utils-*"
)
_OPEN = "nvidia-open* nvidia-*-open nvidia-*-open-*"


def installed(state: HostState) -> dict[str, str]:
    """The packages of a driver, name -> version, whatever their branch; empty where none was installed by packages."""
    return {
        name: version
        for name, version in state.packages.items()
        if any(fnmatchcase(name, pattern) for pattern in _DRIVERS)
    }


def branch_of(version: str) -> str:
    """``580.173.02-1`` -> 580."""
    return version.rpartition(":")[2].partition(".")[0]


def of_branch(host: Host, state: HostState) -> list[str]:
    """Every installed package of the described branch."""
    branch = str(host.settings.versions.driver_branch)
    return sorted(
        name
        for name, version in state.packages.items()
        if branch_of(version) == branch and any(fnmatchcase(name, pattern) for pattern in PATTERNS)
    )


def unheld(host: Host, state: HostState) -> list[str]:
    """Packages of the driver that an upgrade may move. Only of the described branch: another one is not to be kept."""
    return [name for name in of_branch(host, state) if name not in state.held]


def pinned(host: Host, state: HostState) -> bool:
    return pin_file(host, state).is_on(state)


def pin_file(host: Host, state: HostState) -> File:
    """apt takes the first record that fits a version. Open kernel modules are left to a host that runs them."""
    branch = host.settings.versions.driver_branch
    records = [(_ALL, f"{branch}.*", 1001), (_DECISIVE, "*", -1)]
    if state.kernel_module != "open":
        records.insert(0, (_OPEN, "*", -1))
    text = "\n\n".join(f"Package: {names}\nPin: version {version}\nPin-Priority: {p}" for names, version, p in records)
    return File(
        PIN, f"# Written by Stoker: the NVIDIA driver stays on branch {branch} (versions.driver_branch).\n{text}\n"
    )


def pin(host: Host, state: HostState) -> list[Action]:
    if pinned(host, state):
        return []
    script, stdin = write_files([pin_file(host, state)], PREFERENCES)
    return [Action(f"pin the driver to branch {host.settings.versions.driver_branch}: write {PIN}", script, stdin)]


def hold(host: Host, what: str) -> Action:
    """Hold whatever of the branch is installed when it runs."""
    branch = host.settings.versions.driver_branch
    return Action(
        f"hold {what}",
        "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n' "
        f"{' '.join(map(shlex.quote, PATTERNS))} 2>/dev/null | awk '$1 ~ /^.i/ && $3 ~ /^([0-9]+:)?{branch}\\./ {{print $2}}' "
        "| xargs -r apt-mark hold >/dev/null",
    )


def actions(host: Host, state: HostState) -> list[Action]:
    """For a driver that is there. One of another branch, or not from packages, is left as it is; the preflight speaks of it."""
    if not of_branch(host, state):
        return []
    lacking = unheld(host, state)
    return pin(host, state) + ([hold(host, ", ".join(lacking))] if lacking else [])

"""The NVIDIA driver: there, loaded, and of a branch that knows the cards."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stoker.facts.gpus import Gpu, trouble
from stoker.facts.state import HostState
from stoker.plan.look import Look, Reason, Reasons
from stoker.spec.fleet import Host
from stoker.steps.driver import MARKER, awaited, can_be_installed, rebooted

#: The last driver branch for compute capability below 7.5 (NVIDIA data-centre driver page, 2026).
LAST_BRANCH_BEFORE_TURING = 580

#: CUDA 12.x runs on drivers from this branch on (minor-version compatibility).
CUDA_12_BRANCH = 525


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    if host.gpus is None:
        return
    if state.gpu_error:
        if awaited(host, state):
            return
        if host.settings.nvidia.install_driver and rebooted(state):
            yield Reason(
                f"it was rebooted for its driver, which does not load all the same; nvidia-smi says: {state.gpu_error}",
                f"mend the cause (dmesg | grep -i nvrm; mokutil --sb-state; dkms status), then remove {MARKER} there and deploy",
                "driver-not-loaded",
            )
        elif trouble(state.gpu_error) == "not-installed":
            yield Reason("no NVIDIA driver is installed", _install_driver(host, state), "driver-missing")
        elif trouble(state.gpu_error) == "old-program":
            yield Reason(
                f"its nvidia-smi does not know all that is asked of it, so the driver is older than the pinned images need "
                f"(branch {CUDA_12_BRANCH}); it says: {state.gpu_error}",
                f"install branch {host.settings.versions.driver_branch}",
                "driver-branch",
            )
        elif trouble(state.gpu_error) == "mismatch":
            yield Reason(
                f"nvidia-smi says: {state.gpu_error}",
                "the driver was upgraded under a running kernel module: reboot the host",
                "driver-mismatch",
            )
        else:
            yield Reason(f"nvidia-smi says: {state.gpu_error}", _load_driver(state), "driver-not-loaded")
        return
    branch = driver_branch(state.driver)
    old = [gpu for gpu in state.gpus if capability(gpu) < (7, 5)]
    if old and branch > LAST_BRANCH_BEFORE_TURING:
        yield Reason(
            f"driver {state.driver} has no support for {old[0].name}: {LAST_BRANCH_BEFORE_TURING} is the last branch that has",
            f"install branch {LAST_BRANCH_BEFORE_TURING} and hold it (apt-mark hold)",
            "driver-branch",
        )
    yield from _next_boot(state, old)
    if branch < CUDA_12_BRANCH:
        yield Reason(
            f"driver {state.driver} is too old for the pinned images (CUDA 12)",
            f"install branch {host.settings.versions.driver_branch}",
            "driver-branch",
        )


def _next_boot(state: HostState, old: Sequence[Gpu]) -> Reasons:
    """The module on disk against the one that is loaded: an upgrade whose reboot is still to come."""
    if not state.driver or not state.module_version or state.module_version == state.driver:
        return
    lost = old and driver_branch(state.module_version) > LAST_BRANCH_BEFORE_TURING
    yield Reason(
        f"driver {state.driver} is loaded, the next reboot loads {state.module_version}"
        + (f", which has no support for {old[0].name}" if lost else ""),
        f"go back to branch {LAST_BRANCH_BEFORE_TURING} and hold it (apt-mark hold) before anyone reboots"
        if lost
        else "reboot at a time of your own; programs and module differ until then",
        "driver-reboot",
        "warn",
    )


def _load_driver(state: HostState) -> str:
    hints = []
    if state.guards.secure_boot:
        hints.append(
            "Secure Boot is on and loads signed modules only: enrol the key that the module is signed with "
            "(mokutil --import, then reboot) or switch Secure Boot off"
        )
    if state.guards.nouveau:
        hints.append("the kernel's own driver nouveau has the cards: blacklist it, update-initramfs -u, reboot")
    hints.append(
        "look at `dmesg | grep -i nvrm` on the host; after a kernel upgrade rebuild the module (dkms autoinstall) and reboot"
    )
    return "; ".join(hints)


def _install_driver(host: Host, state: HostState) -> str:
    branch = host.settings.versions.driver_branch
    package = (
        f"apt install nvidia-driver-{branch}-server"
        if state.os_id == "ubuntu"
        else "nvidia-driver-cuda and nvidia-kernel-dkms of NVIDIA's repository"
    )
    by_stoker = "write nvidia = {'install_driver': True} in group_data, or " if can_be_installed(state) else ""
    return f"{by_stoker}install the proprietary driver of branch {branch} ({package}), reboot, and deploy again"


def driver_branch(version: str) -> int:
    match = re.match(r"(\d+)", version)
    return int(match.group(1)) if match else 0


def capability(gpu: Gpu) -> tuple[int, int]:
    major, _, minor = gpu.compute_capability.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)

"""torch.cuda of the stand-in: devices of the simulated driver, compute architectures of this build."""

from __future__ import annotations

from lab_gpu import accounting
from lab_gpu.machine import Gpu, cuda_gpus, read_machine
from lab_gpu.smi import driver_failure

from torch.build import ARCHITECTURES

MIB = 1024 * 1024


class OutOfMemoryError(RuntimeError):
    """No memory left on the card."""


def _gpus() -> list[Gpu]:
    return cuda_gpus(read_machine()) if driver_failure() is None else []


def is_available() -> bool:
    return bool(_gpus())


def device_count() -> int:
    return len(_gpus())


def get_arch_list() -> list[str]:
    return list(ARCHITECTURES) if is_available() else []


def _first() -> Gpu:
    gpus = _gpus()
    if not gpus:
        raise RuntimeError(
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from "
            "http://www.nvidia.com/Download/index.aspx"
        )
    return gpus[0]


def get_device_name(device: int = 0) -> str:
    return _first()["name"]


def get_device_capability(device: int = 0) -> tuple[int, int]:
    major, minor = _first()["compute_cap"].split(".")
    return int(major), int(minor)


def mem_get_info(device: int = 0) -> tuple[int, int]:
    gpu = _first()
    return accounting.free_bytes(gpu), gpu["usable_mib"] * MIB


def require_kernel_image() -> None:
    """Raise RuntimeError when this build has no code for the card."""
    major, _ = get_device_capability()
    if major < min(int(name.removeprefix("sm_")) for name in ARCHITECTURES) // 10:
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\n"
            "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.\n"
            "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
            "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
        )

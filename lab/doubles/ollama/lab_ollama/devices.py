"""Which card Ollama uses, with the log lines that say so at the start."""

from __future__ import annotations

from dataclasses import dataclass

from lab_gpu import accounting
from lab_gpu.machine import Gpu, cuda_gpus, read_machine
from lab_gpu.smi import driver_failure

from lab_ollama.log import log

GIB = 1024**3
# CC 5.0 to 6.2 need this driver since 0.30 (docs/gpu.mdx, discover/cuda_compat.go).
OLD_CARD_DRIVER = 570


@dataclass(frozen=True)
class Device:
    """The card, or None for the CPU, and the context size that its memory gives by default."""

    gpu: Gpu | None
    default_context: int


def discover() -> Device:
    """Look for cards and log what was found."""
    log("INFO", "runner.go:67", "discovering available GPUs...")
    machine = read_machine() if driver_failure() is None else None
    for gpu in cuda_gpus(machine):
        assert machine is not None
        capability = float(gpu["compute_cap"])
        if capability < 6.3 and int(machine["driver_version"].split(".")[0]) < OLD_CARD_DRIVER:
            log(
                "WARN",
                "cuda_compat.go:61",
                "NVIDIA driver too old",
                device=gpu["name"],
                compute=gpu["compute_cap"],
                driver=machine["driver_version"],
                required_driver=f"{OLD_CARD_DRIVER} or newer",
            )
            continue
        total = gpu["usable_mib"] * 1024 * 1024
        log(
            "INFO",
            "types.go:42",
            "inference compute",
            id=gpu["uuid"],
            filter_id="",
            library="CUDA",
            compute=gpu["compute_cap"],
            name="CUDA0",
            description=gpu["name"],
            libdirs="ollama,cuda_v12" if capability < 7.5 else "ollama,cuda_v13",
            driver=machine["cuda_version"],
            pci_id=gpu["bus_id"][4:].lower(),
            type="discrete",
            total=f"{total / GIB:.1f} GiB",
            available=f"{accounting.free_bytes(gpu) / GIB:.1f} GiB",
        )
        context = 262144 if total >= 47 * GIB else 32768 if total >= 23 * GIB else 4096
        log(
            "INFO",
            "routes.go:1744",
            "vram-based default context",
            total_vram=f"{total / GIB:.1f} GiB",
            default_num_ctx=context,
        )
        return Device(gpu, context)
    log(
        "INFO",
        "types.go:60",
        "inference compute",
        id="cpu",
        library="cpu",
        compute="",
        name="cpu",
        description="cpu",
        total="125.6 GiB",
    )
    log("INFO", "routes.go:1744", "vram-based default context", total_vram="0 B", default_num_ctx=4096)
    return Device(None, 4096)

"""The cards of this machine (gpus.json) and those that the current process may see."""

from __future__ import annotations

import json
import os
from typing import TypedDict

from lab_gpu import paths


class Gpu(TypedDict):
    """One simulated card; sizes in MiB, power in W."""

    index: int
    uuid: str
    serial: str
    bus_id: str
    name: str
    brand: str
    architecture: str
    memory_mib: int
    usable_mib: int
    compute_cap: str
    ecc: str
    idle_w: int
    limit_w: int
    fan: bool
    pcie_generation: int


class Machine(TypedDict):
    """gpus.json: the simulated driver and its cards."""

    driver_version: str
    cuda_version: str
    gpus: list[Gpu]


def read_machine() -> Machine | None:
    """The machine's description, or None where there is no simulated driver (a container without GPUs)."""
    try:
        with open(paths.gpus_file(), encoding="utf-8") as handle:
            machine: Machine = json.load(handle)
            return machine
    except FileNotFoundError:
        return None


def in_container() -> bool:
    """True in a container that a runtime gave GPUs to: by CDI edits, or by the legacy hook (which leaves a marker)."""
    return bool(os.environ.get("LAB_GPU_CDI")) or os.path.exists(paths.LEGACY_MARKER)


def visible_gpus(machine: Machine | None) -> list[Gpu]:
    """Cards that this process can reach: on the host all, in a container those that the runtime gave.

    The CDI edits leave one LAB_GPU_<index>=<uuid> for each device (NVIDIA_VISIBLE_DEVICES is "void" then, as in the real CDI
    specification); the legacy hook goes by NVIDIA_VISIBLE_DEVICES.
    """
    if machine is None:
        return []
    gpus = machine["gpus"]
    if os.environ.get("LAB_GPU_CDI"):
        return [gpu for gpu in gpus if os.environ.get(f"LAB_GPU_{gpu['index']}") == gpu["uuid"]]
    if os.path.exists(paths.LEGACY_MARKER):
        return _select(gpus, os.environ.get("NVIDIA_VISIBLE_DEVICES", ""), stop_at_unknown=False)
    return gpus


def cuda_gpus(machine: Machine | None) -> list[Gpu]:
    """visible_gpus, further narrowed by CUDA_VISIBLE_DEVICES (nvidia-smi does not look at it, CUDA does)."""
    gpus = visible_gpus(machine)
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    return gpus if wanted is None else _select(gpus, wanted, stop_at_unknown=True)


def _select(gpus: list[Gpu], wanted: str, *, stop_at_unknown: bool) -> list[Gpu]:
    if wanted == "all":
        return gpus
    chosen: list[Gpu] = []
    for entry in wanted.split(","):
        entry = entry.strip()
        found = [
            gpu
            for position, gpu in enumerate(gpus)
            if entry == str(position) or (entry.startswith("GPU-") and gpu["uuid"].startswith(entry))
        ]
        if found:
            chosen += [gpu for gpu in found if gpu not in chosen]
        elif stop_at_unknown:
            break
    return chosen

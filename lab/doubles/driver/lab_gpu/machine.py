"""The cards of this machine (gpus.json) and those that the current process may see."""

from __future__ import annotations

import json
import os
from typing import NotRequired, TypedDict

from lab_gpu import paths, settings

# The CUDA version that nvidia-smi of a driver branch shows.
CUDA_OF_BRANCH = {"525": "12.0", "535": "12.2", "550": "12.4", "570": "12.8", "580": "13.0", "590": "13.1"}


class Gpu(TypedDict):
    """One simulated card; sizes in MiB, power in W.

    `index` counts the cards that the reader sees; `minor`, in what visible_gpus gives, is the number of the device node.
    """

    index: int
    minor: NotRequired[int]
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
    except FileNotFoundError:
        return None
    name, version = settings.fault("driver")
    if name == "version" and version:
        machine["driver_version"] = version
        machine["cuda_version"] = CUDA_OF_BRANCH.get(version.split(".")[0], machine["cuda_version"])
    return {**machine, "gpus": _ordered(machine["gpus"])}


def _ordered(gpus: list[Gpu]) -> list[Gpu]:
    """The cards in the order of this boot. The slots stay where they are: cards have changed places in them."""
    try:
        with open(paths.order_file(), encoding="utf-8") as handle:
            order = [int(number) for number in handle.read().split(",")]
    except FileNotFoundError:
        return gpus
    places = [(gpu["index"], gpu["bus_id"]) for gpu in gpus]
    cards = [gpus[old] for old in order]
    return [{**card, "index": index, "bus_id": bus} for card, (index, bus) in zip(cards, places, strict=True)]


def visible_gpus(machine: Machine | None) -> list[Gpu]:
    """Cards that this process can reach, numbered from 0 as a driver numbers them: those whose device node is here.

    On the host these are all; in a container those that the runtime gave, by CDI or by the legacy hook. In tests (LAB_GPU_DIR)
    there are no device nodes and every card is visible.
    """
    if machine is None:
        return []
    given = [gpu for gpu in machine["gpus"] if paths.in_test() or os.path.exists(f"/dev/nvidia{gpu['index']}")]
    return [{**gpu, "index": position, "minor": gpu["index"]} for position, gpu in enumerate(given)]


def cuda_gpus(machine: Machine | None) -> list[Gpu]:
    """visible_gpus, further narrowed by CUDA_VISIBLE_DEVICES (nvidia-smi does not look at it, CUDA does)."""
    gpus = visible_gpus(machine)
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    return gpus if wanted is None else _select(gpus, wanted)


def _select(gpus: list[Gpu], wanted: str) -> list[Gpu]:
    """CUDA's rule: an unknown entry hides itself and everything after it."""
    chosen: list[Gpu] = []
    for entry in wanted.split(","):
        entry = entry.strip()
        found = [
            gpu
            for position, gpu in enumerate(gpus)
            if entry == str(position) or (entry.startswith("GPU-") and gpu["uuid"].startswith(entry))
        ]
        if not found:
            break
        chosen += [gpu for gpu in found if gpu not in chosen]
    return chosen

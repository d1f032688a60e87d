"""Cards and what runs on them, as the probe's two CSV queries of nvidia-smi print them. Pure."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stoker.spec.gpu_name import bus_id as bus_id  # also imported from here

#: What the probe asks for, and the order of the columns.
GPU_FIELDS = (
    "index,uuid,name,memory.total,compute_cap,driver_version,pci.bus_id,memory.used,ecc.mode.current,mig.mode.current"
)
PROCESS_FIELDS = "gpu_uuid,pid,process_name,used_memory"

#: nvidia-smi's exit statuses (its manual, RETURN VALUE): all well, and a damaged infoROM. With that the card works.
WELL, DAMAGED_INFOROM = 0, 14
#: timeout(1), when the program did not end.
TIMED_OUT = 124

KernelModule = Literal["proprietary", "open", ""]
Trouble = Literal[
    "not-installed",
    "not-loaded",
    "mismatch",
    "no-devices",
    "lost",
    "no-rights",
    "old-program",
    "hung",
    "unknown-error",
    "",
]


@dataclass(frozen=True)
class Gpu:
    """One card as nvidia-smi reports it. Memory in MiB; None and empty: it does not say."""

    index: int
    uuid: str
    name: str
    memory_mib: int  #: 0 when it does not say, as cards do that share the machine's memory
    compute_capability: str
    bus_id: str = ""  #: as `bus_id` normalises it
    used_mib: int | None = None
    ecc: bool | None = None  #: None: the card has none
    mig: bool | None = None  #: None: the card cannot be divided


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a card. ``used_mib`` is None where nvidia-smi may not or cannot say it."""

    gpu_uuid: str
    pid: int
    name: str
    used_mib: int | None


#: Words of nvidia-smi -> what has happened. The first that is found counts.
_TROUBLES: tuple[tuple[str, Trouble], ...] = (
    ("library version mismatch", "mismatch"),
    ("couldn't communicate with the NVIDIA driver", "not-loaded"),
    ("Driver Not Loaded", "not-loaded"),
    ("No devices were found", "no-devices"),
    ("GPU is lost", "lost"),
    ("GPU requires reset", "lost"),
    ("has fallen off the bus", "lost"),
    ("Insufficient Permissions", "no-rights"),
    ("is not a valid field to query", "old-program"),
    ("did not answer within", "hung"),
    ("Unknown Error", "unknown-error"),
    ("Unable to determine the device handle", "unknown-error"),
    ("nvidia-smi: not found", "not-installed"),
    ("nvidia-smi: command not found", "not-installed"),
    ("nvidia-smi is not installed", "not-installed"),
    ("Shared Library Not Found", "not-installed"),
)


def trouble(text: str) -> Trouble:
    """What nvidia-smi's words mean; empty when they tell of no trouble that is known."""
    low = text.lower()
    return next((kind for words, kind in _TROUBLES if words.lower() in low), "")


def number(cell: str) -> int | None:
    """``23040``, ``23040 MiB``, ``0.00``; None for [N/A], [Not Supported], [Unknown Error], ERR! and the like."""
    found = re.fullmatch(r"(\d+)(?:\.\d+)?(?:\s*[A-Za-z%]+)?", cell.strip())
    return int(found.group(1)) if found else None


def unsaid(cell: str) -> bool:
    """Whether a cell says that there is nothing to say: the card has no such thing."""
    return cell.strip().strip("[]").lower() in ("", "n/a", "not supported", "-")


def switch(cell: str) -> bool | None:
    """``Enabled`` or ``Disabled``; None where the card has no such mode."""
    return {"enabled": True, "disabled": False}.get(cell.strip().lower())


def queried(lines: Sequence[str]) -> tuple[list[Gpu], str, str]:
    """Cards, driver version, and nvidia-smi's own words when it failed. The last line is ``rc=N``."""
    status = number(lines[-1].removeprefix("rc=")) if lines else None
    rows = [line for line in lines[:-1] if line.strip() and not line.startswith("WARNING:")]
    if not (status == WELL or (status == DAMAGED_INFOROM and rows)):
        text = " ".join(line.strip() for line in lines[:-1] if line.strip())
        if status == TIMED_OUT:
            text = f"{text} nvidia-smi did not answer within 60 s".strip()
        return [], "", text or "nvidia-smi is not installed"
    if not rows:
        return [], "", "nvidia-smi names no card and no reason"
    gpus, driver = [], ""
    for row in csv.reader(rows, skipinitialspace=True):
        gpu = _gpu([cell.strip() for cell in row])
        if gpu is None:
            return [], "", f"nvidia-smi printed an unexpected row: {', '.join(row)}"
        gpus.append(gpu)
        driver = row[5].strip()
    return gpus, driver, ""


def _gpu(row: Sequence[str]) -> Gpu | None:
    if len(row) != len(GPU_FIELDS.split(",")):
        return None
    index, uuid, name, memory, capability, _, address, used, ecc, mig = row
    total = 0 if unsaid(memory) else number(memory)
    if number(index) is None or total is None:
        return None
    return Gpu(int(index), uuid, name, total, capability, bus_id(address), number(used), switch(ecc), switch(mig))


def processes(lines: Iterable[str]) -> list[GpuProcess]:
    """Rows of the second query. nvidia-smi does not quote a process's name, and a name may hold commas."""
    found = []
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) >= 4 and cells[1].isdigit():
            found.append(GpuProcess(cells[0], int(cells[1]), ", ".join(cells[2:-1]), number(cells[-1])))
    return found


def kernel_module(lines: Iterable[str]) -> KernelModule:
    """The flavour from /proc/driver/nvidia/version, or from the licence that modinfo names (Dual MIT/GPL, NVIDIA)."""
    text = "\n".join(lines)
    if "Open Kernel Module" in text or "Dual MIT/GPL" in text:
        return "open"
    return "proprietary" if "Kernel Module" in text or text.strip() == "NVIDIA" else ""

"""The CSV queries of nvidia-smi: --query-gpu and --query-compute-apps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from lab_gpu import accounting, paths
from lab_gpu.machine import Gpu, Machine

Row = list[tuple[str, str]]  # (value, unit) of each field


class UnknownFieldError(Exception):
    """A field that nvidia-smi does not know."""


class Card:
    """One card with what occupies it, read once."""

    def __init__(self, machine: Machine, gpu: Gpu, count: int) -> None:
        self.machine, self.gpu, self.count = machine, gpu, count
        self.used = round(accounting.used_bytes(gpu) / accounting.MIB)
        self.reserved = gpu["memory_mib"] - gpu["usable_mib"]
        self.free = max(gpu["usable_mib"] - self.used, 0)
        self.watts = gpu["idle_w"] + (18 if self.used else 0)
        self.persistent = paths.in_test() or os.path.exists(paths.persistence_file())
        self.celsius = 31 + 2 * gpu["index"] + (6 if self.used else 0)


def _major(cap: str) -> int:
    return int(cap.split(".", maxsplit=1)[0])


GPU_FIELDS: dict[str, tuple[str, Callable[[Card], str]]] = {
    "timestamp": ("", lambda c: time.strftime("%Y/%m/%d %H:%M:%S.000")),
    "driver_version": ("", lambda c: c.machine["driver_version"]),
    "count": ("", lambda c: str(c.count)),
    "name": ("", lambda c: c.gpu["name"]),
    "gpu_name": ("", lambda c: c.gpu["name"]),
    "index": ("", lambda c: str(c.gpu["index"])),
    "uuid": ("", lambda c: c.gpu["uuid"]),
    "gpu_uuid": ("", lambda c: c.gpu["uuid"]),
    "serial": ("", lambda c: c.gpu["serial"]),
    "gpu_serial": ("", lambda c: c.gpu["serial"]),
    "pci.bus_id": ("", lambda c: c.gpu["bus_id"]),
    "gpu_bus_id": ("", lambda c: c.gpu["bus_id"]),
    "pci.bus": ("", lambda c: "0x" + c.gpu["bus_id"].split(":")[1]),
    "compute_cap": ("", lambda c: c.gpu["compute_cap"]),
    "compute_mode": ("", lambda c: "Default"),
    "persistence_mode": ("", lambda c: "Enabled" if c.persistent else "Disabled"),
    "display_mode": ("", lambda c: "Disabled"),
    "display_active": ("", lambda c: "Disabled"),
    "mig.mode.current": ("", lambda c: "[N/A]"),
    "ecc.mode.current": ("", lambda c: {"on": "Enabled", "off": "Disabled"}.get(c.gpu["ecc"], "[N/A]")),
    "ecc.errors.uncorrected.volatile.total": ("", lambda c: "0" if c.gpu["ecc"] == "on" else "[N/A]"),
    "ecc.errors.corrected.volatile.total": ("", lambda c: "0" if c.gpu["ecc"] == "on" else "[N/A]"),
    "memory.total": ("MiB", lambda c: str(c.gpu["memory_mib"])),
    "memory.reserved": ("MiB", lambda c: str(c.reserved)),
    "memory.used": ("MiB", lambda c: str(c.used)),
    "memory.free": ("MiB", lambda c: str(c.free)),
    "utilization.gpu": ("%", lambda c: "0"),
    "utilization.memory": ("%", lambda c: "0"),
    "temperature.gpu": ("", lambda c: str(c.celsius)),
    "temperature.memory": ("", lambda c: str(c.celsius - 1) if _major(c.gpu["compute_cap"]) == 7 else "N/A"),
    "fan.speed": ("%", lambda c: "30" if c.gpu["fan"] else "[N/A]"),
    "pstate": ("", lambda c: "P0" if c.used or c.gpu["brand"] == "Tesla" else "P8"),
    "power.draw": ("W", lambda c: f"{c.watts}.00"),
    "power.draw.instant": ("W", lambda c: f"{c.watts}.00"),
    "power.limit": ("W", lambda c: f"{c.gpu['limit_w']}.00"),
    "power.default_limit": ("W", lambda c: f"{c.gpu['limit_w']}.00"),
    "power.max_limit": ("W", lambda c: f"{c.gpu['limit_w']}.00"),
    "clocks.sm": ("MHz", lambda c: "1290" if c.used else "135"),
    "clocks.current.sm": ("MHz", lambda c: "1290" if c.used else "135"),
    "clocks.mem": ("MHz", lambda c: "877"),
    "clocks.current.memory": ("MHz", lambda c: "877"),
    "pcie.link.gen.current": ("", lambda c: str(c.gpu["pcie_generation"])),
    "pcie.link.gen.max": ("", lambda c: str(c.gpu["pcie_generation"])),
    "pcie.link.width.current": ("", lambda c: "16"),
    "pcie.link.width.max": ("", lambda c: "16"),
    "clocks_throttle_reasons.active": ("", lambda c: "0x0000000000000000"),
    "clocks_event_reasons.active": ("", lambda c: "0x0000000000000000"),
    "retired_pages.pending": ("", lambda c: "No" if c.gpu["ecc"] == "on" else "[N/A]"),
    "vbios_version": ("", lambda c: "88.00.48.00.02"),
}

App = tuple[Gpu, accounting.Held]
APP_FIELDS: dict[str, tuple[str, Callable[[App], str]]] = {
    "timestamp": ("", lambda a: time.strftime("%Y/%m/%d %H:%M:%S.000")),
    "gpu_name": ("", lambda a: a[0]["name"]),
    "gpu_bus_id": ("", lambda a: a[0]["bus_id"]),
    "gpu_serial": ("", lambda a: a[0]["serial"]),
    "gpu_uuid": ("", lambda a: a[0]["uuid"]),
    "pid": ("", lambda a: str(a[1]["pid"])),
    "process_name": ("", lambda a: a[1]["name"]),
    "name": ("", lambda a: a[1]["name"]),
    "used_gpu_memory": ("MiB", lambda a: str(round(a[1]["bytes"] / accounting.MIB))),
    "used_memory": ("MiB", lambda a: str(round(a[1]["bytes"] / accounting.MIB))),
}


def gpu_rows(fields: list[str], machine: Machine, gpus: list[Gpu]) -> list[Row]:
    """Values of --query-gpu, one row for each card. Raises UnknownFieldError."""
    _check(fields, GPU_FIELDS)
    cards = [Card(machine, gpu, len(machine["gpus"])) for gpu in gpus]
    return [[(GPU_FIELDS[field][1](card), GPU_FIELDS[field][0]) for field in fields] for card in cards]


def app_rows(fields: list[str], gpus: list[Gpu]) -> list[Row]:
    """Values of --query-compute-apps, one row for each process that this PID namespace can see. Raises UnknownFieldError."""
    _check(fields, APP_FIELDS)
    apps = [(gpu, entry) for gpu in gpus for entry in accounting.held(gpu) if entry["pid"] and entry["bytes"]]
    return [[(APP_FIELDS[field][1](app), APP_FIELDS[field][0]) for field in fields] for app in apps]


def render_csv(fields: list[str], rows: list[Row], known: Mapping[str, tuple[str, object]], form: list[str]) -> str:
    """CSV text as nvidia-smi prints it; `form` holds csv, noheader, nounits."""
    lines = []
    if "noheader" not in form:
        # nounits takes the units from the values only, never from the header
        lines.append(", ".join(f"{field} [{known[field][0]}]" if known[field][0] else field for field in fields))
    for row in rows:
        cells = (
            f"{value} {unit}" if unit and "nounits" not in form and value != "[N/A]" else value for value, unit in row
        )
        lines.append(", ".join(cells))
    return "".join(line + "\n" for line in lines)


def _check(fields: list[str], known: Mapping[str, tuple[str, object]]) -> None:
    for field in fields:
        if field not in known:
            raise UnknownFieldError(field)

"""The two human-readable reports of nvidia-smi: the summary table and a modest -q, in branch 580's layout."""

from __future__ import annotations

import time

from lab_gpu import accounting
from lab_gpu.machine import Gpu, Machine
from lab_gpu.smi_query import Card

WIDE = "-" * 89
# Characters of a name in the table, as the cut names in tests/data/nvidia-smi show: a card loses its end, a process its beginning.
NAME_WIDTH, PROCESS_WIDTH = 27, 32
COLUMNS = "+" + "-" * 41 + "+" + "-" * 24 + "+" + "-" * 22 + "+"


def summary_table(machine: Machine, gpus: list[Gpu]) -> str:
    """What plain `nvidia-smi` prints."""
    version = machine["driver_version"]
    lines = [
        time.strftime("%a %b %e %H:%M:%S %Y       "),
        f"+{WIDE}+",
        f"| NVIDIA-SMI {version:<22} Driver Version: {version:<14} CUDA Version: {machine['cuda_version']:<8} |",
        COLUMNS,
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |",
        "|                                         |                        |               MIG M. |",
        "|" + "=" * 41 + "+" + "=" * 24 + "+" + "=" * 22 + "|",
    ]
    for gpu in gpus:
        card = Card(machine, gpu, len(machine["gpus"]))
        ecc = {"on": "0", "off": "Off"}.get(gpu["ecc"], "N/A")
        fan = "30%" if gpu["fan"] else "N/A"
        state = "P0" if card.used or gpu["brand"] == "Tesla" else "P8"
        power = f"{card.watts:>15}W / {gpu['limit_w']:>4}W"
        memory = f"{card.used:>7}MiB / {gpu['memory_mib']:>6}MiB"
        lines += [
            f"| {gpu['index']:>3}  {_beginning(gpu['name']):<31}{'On' if card.persistent else 'Off':<3} | {gpu['bus_id']:>18} Off | {ecc:>20} |",
            f"| {fan:>3} {card.celsius:>4}C    {state}{power} | {memory} | {0:>6}%      Default |",
            "|" + " " * 41 + "|" + " " * 24 + "|" + f"{'N/A':>21} |",
            COLUMNS,
        ]
    lines += ["", f"+{WIDE}+", f"| {'Processes:':<88}|"]
    lines += [
        "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |",
        "|        ID   ID                                                               Usage      |",
        "|" + "=" * 89 + "|",
    ]
    apps = [(gpu, app) for gpu in gpus for app in accounting.held(gpu) if app["pid"] and app["bytes"]]
    for gpu, app in apps:
        size = f"{round(app['bytes'] / accounting.MIB)}MiB"
        lines.append(f"| {gpu['index']:>4}   N/A  N/A {app['pid']:>15}      C   {_end(app['name']):<35} {size:>10} |")
    if not apps:
        lines.append(f"|  {'No running processes found':<87}|")
    lines.append(f"+{WIDE}+")
    return "\n".join(lines)


def _beginning(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 3]}..."


def _end(name: str) -> str:
    return name if len(name) <= PROCESS_WIDTH else f"...{name[3 - PROCESS_WIDTH :]}"


def full_report(machine: Machine, gpus: list[Gpu]) -> str:
    """A modest `nvidia-smi -q`: the sections that people and tools read."""
    lines = ["", "==============NVSMI LOG==============", ""]
    lines += [_entry(0, "Timestamp", time.strftime("%a %b %e %H:%M:%S %Y"))]
    lines += [
        _entry(0, "Driver Version", machine["driver_version"]),
        _entry(0, "CUDA Version", machine["cuda_version"]),
        "",
    ]
    lines += [_entry(0, "Attached GPUs", str(len(machine["gpus"])))]
    for gpu in gpus:
        card = Card(machine, gpu, len(machine["gpus"]))
        lines += [
            f"GPU {gpu['bus_id']}",
            _entry(1, "Product Name", gpu["name"]),
            _entry(1, "Product Brand", gpu["brand"]),
            _entry(1, "Product Architecture", gpu["architecture"]),
            _entry(1, "Persistence Mode", "Enabled" if card.persistent else "Disabled"),
            _entry(1, "Serial Number", gpu["serial"]),
            _entry(1, "GPU UUID", gpu["uuid"]),
            _entry(1, "Minor Number", str(gpu["minor"])),
            "    FB Memory Usage",
            _entry(2, "Total", f"{gpu['memory_mib']} MiB"),
            _entry(2, "Reserved", f"{card.reserved} MiB"),
            _entry(2, "Used", f"{card.used} MiB"),
            _entry(2, "Free", f"{card.free} MiB"),
            _entry(1, "Compute Mode", "Default"),
            "    ECC Mode",
            _entry(2, "Current", {"on": "Enabled", "off": "Disabled"}.get(gpu["ecc"], "N/A")),
            "    Temperature",
            _entry(2, "GPU Current Temp", f"{card.celsius} C"),
            "    GPU Power Readings",
            _entry(2, "Instantaneous Power Draw", f"{card.watts}.00 W"),
            _entry(2, "Current Power Limit", f"{gpu['limit_w']}.00 W"),
        ]
        apps = [app for app in accounting.held(gpu) if app["pid"] and app["bytes"]]
        lines += [_entry(1, "Processes", "None")] if not apps else ["    Processes"]
        for app in apps:
            size = round(app["bytes"] / accounting.MIB)
            lines += [
                _entry(2, "GPU instance ID", "N/A"),
                _entry(2, "Compute instance ID", "N/A"),
                _entry(2, "Process ID", str(app["pid"])),
                _entry(3, "Type", "C"),
                _entry(3, "Name", app["name"]),
                _entry(3, "Used GPU Memory", f"{size} MiB"),
            ]
        lines.append("")
    return "\n".join(lines)


def _entry(level: int, name: str, value: str) -> str:
    indent = "    " * level
    return f"{indent}{name:<{42 - len(indent)}}: {value}"

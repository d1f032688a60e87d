"""lab/status: show the machines. Exit 0: the lab is up; 3: it is not, or a machine is off. A host on demand may be absent.

usage: lab/status
"""

from __future__ import annotations

from lab.machines import config, daemon, hosts, marker, network, requirements, ui
from lab.machines.arguments import parse
from lab.machines.config import Machine
from lab.machines.paths import ROOT

NOT_UP = 3


def main(arguments: list[str]) -> int:
    """The command. Raises LabError."""
    parse(__doc__ or "", arguments)
    requirements.need_root()
    lab = config.load()
    owner = marker.owner()
    if owner and owner != ROOT:
        ui.say(f"The lab of another checkout is up: {owner}")
        return NOT_UP
    if not network.exists(lab.network) or not daemon.running():
        ui.say("The lab is not up; start it with lab/up")
        return NOT_UP
    states = {machine: hosts.container_state(machine) for machine in lab.machines}
    rows = [("MACHINE", "ADDRESS", "STATE", "SYSTEM", "CARDS (SIMULATED)"), *[_row(*item) for item in states.items()]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        ui.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    missing = [
        machine for machine, state in states.items() if state != "running" and not _not_asked_for(machine, state)
    ]
    return NOT_UP if missing else 0


def _row(machine: Machine, state: str) -> tuple[str, ...]:
    cards = ", ".join(f"{count} x {card}" for card, count in machine.cards().items())
    shown = "up " + hosts.uptime(machine) if state == "running" else state
    if _not_asked_for(machine, state):
        shown = f"lab/up --with {machine.name}"
    return machine.name, machine.address, shown, f"Debian {machine.release}", cards or "-"


def _not_asked_for(machine: Machine, state: str) -> bool:
    return machine.on_demand and state == "absent"

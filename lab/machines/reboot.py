"""lab/reboot: restart a machine, as `reboot` on it would: services stop, systemd boots again, containers come up by their policy.

usage: lab/reboot HOST
"""

from __future__ import annotations

import time

from lab.machines import config, hosts, marker, requirements, ui
from lab.machines.arguments import parse
from lab.machines.running import need_lab, need_made


def main(arguments: list[str]) -> int:
    """The command. Raises LabError."""
    name = parse(__doc__ or "", arguments, words=1).words[0]
    requirements.need_root()
    lab = config.load()
    machine = lab.machine(name)
    started = time.monotonic()
    with marker.only_one(f"lab/reboot {name}"):
        need_lab(lab)
        need_made(machine)
        hosts.stop(machine)
        hosts.start(lab, machine)
    ui.say(f"{machine.name} ({machine.address}) has rebooted, after {time.monotonic() - started:.1f} s")
    return 0

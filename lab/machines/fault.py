"""lab/fault: make a simulated part of a machine fail in a chosen way, or work again.

usage: lab/fault MACHINE ARGUMENT...

    lab/fault gpu10 list                    what fails now
    lab/fault gpu10 TARGET FAULT[=VALUE]    make it fail; the tables in lab/README.md have targets and faults
    lab/fault gpu10 TARGET clear            make it work again

MACHINE is a GPU host, or `internet` for the model hub.
"""

from __future__ import annotations

import sys

from lab.machines import config, daemon, hosts, requirements
from lab.machines.errors import LabError

PROGRAMS = {"gpu": "/usr/lib/lab-gpu/fault", "internet": "/usr/lib/lab-internet/fault"}
"""The machine's own fault program, by the kind of machine."""


def main(arguments: list[str]) -> int:
    """The command; ends with the exit code of the machine's own fault program. Raises LabError."""
    if len(arguments) < 2 or arguments[0].startswith("-"):
        asked = arguments in (["--help"], ["-h"])
        print((__doc__ or "").strip(), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    requirements.need_root()
    machine = config.load().machine(arguments[0])
    if not daemon.running() or hosts.container_state(machine) != "running":
        raise LabError(machine.how_to_start)
    done = daemon.docker("exec", machine.container, PROGRAMS[machine.kind], *arguments[1:], check=False)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode

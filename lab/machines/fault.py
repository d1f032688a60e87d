"""lab/fault: make a simulated part of a host fail in a chosen way, or work again.

usage: lab/fault HOST ARGUMENT...

    lab/fault gpu10 list                    what can fail, and what does
    lab/fault gpu10 TARGET FAULT[=VALUE]    make it fail; the table in lab/README.md has the faults
    lab/fault gpu10 TARGET clear            make it work again
"""

from __future__ import annotations

import sys

from lab.machines import config, daemon, hosts, requirements
from lab.machines.errors import LabError

PROGRAM = "/usr/lib/lab-gpu/fault"


def main(arguments: list[str]) -> int:
    """The command; ends with the exit code of the host's own fault program. Raises LabError."""
    if len(arguments) < 2 or arguments[0].startswith("-"):
        asked = arguments in (["--help"], ["-h"])
        print((__doc__ or "").strip(), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    requirements.need_root()
    host = config.load().host(arguments[0])
    if not daemon.running() or hosts.container_state(host) != "running":
        raise LabError(f"{host.name} is not up; lab/status shows the machines, lab/up starts them")
    done = daemon.docker("exec", host.container, PROGRAM, *arguments[1:], check=False)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode

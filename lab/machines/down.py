"""lab/down: stop the lab and remove everything it started.

usage: lab/down [--purge]

    --purge   remove the caches too (images, packages, registry content); the next lab/up starts from nothing

The hosts' disks are gone afterwards. Debian packages that lab/up installed stay.
"""

from __future__ import annotations

import shutil
import time

from lab.machines import access, config, daemon, forward, hosts, marker, network, requirements, ui
from lab.machines.arguments import parse
from lab.machines.errors import LabError
from lab.machines.paths import LOGS, ROOT, RUN, STATE, cache


def main(arguments: list[str]) -> int:
    """The command. Raises LabError."""
    options = parse(__doc__ or "", arguments, flags=("--purge",))
    started = time.monotonic()
    lab = config.load()
    requirements.need_root()
    with marker.only_one("lab/down"):
        owner = marker.owner()
        if owner and owner != ROOT:
            raise LabError(f"the lab that is up belongs to another checkout; stop it with: {owner}/lab/down")
        forward.stop_all()
        _remove_machines(lab)
        daemon.stop()
        network.remove(lab.network)
        access.forget(lab)
        shutil.rmtree(STATE / "machines", ignore_errors=True)
        shutil.rmtree(RUN, ignore_errors=True)
        if "--purge" in options.flags:
            for folder in (STATE, LOGS, cache()):
                shutil.rmtree(folder, ignore_errors=True)
    left = "nothing is left" if "--purge" in options.flags else f"the caches stay: {cache()}, {STATE}"
    ui.say(f"The lab is down, after {time.monotonic() - started:.1f} s; {left}.")
    return 0


def _remove_machines(lab: config.Lab) -> None:
    """Remove the machines; after a restart of the computer the lab's Docker must be started for that."""
    if not daemon.running():
        if not (STATE / "docker").is_dir() or not (STATE / "machines").is_dir():
            return
        daemon.start()
    hosts.remove_all(lab)

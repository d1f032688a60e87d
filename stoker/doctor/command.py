"""``stoker doctor``: one command for each host, all hosts at once, then every check."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from stoker.description import CannotStart, Description, read
from stoker.doctor import live
from stoker.doctor.checks import CONNECTION, Result, examine
from stoker.doctor.look import Commands, LiveLook
from stoker.doctor.probe import whole_script
from stoker.doctor.report import as_json, exit_status, show
from stoker.facts.state import parse
from stoker.inventory import group_data_directories
from stoker.smoke.ssh import REACH_IT, UNREACHED, AccessError, Login, Shell, logins
from stoker.spec.fleet import Host

NOT_STARTED = 3

#: The inventory that `stoker deploy` takes by itself.
_DEFAULT_INVENTORY = Path("inventory.py")


def doctor(inventory: Path, overlays: Sequence[str] = (), limit: Sequence[str] = (), json: bool = False) -> int:
    """Check the fleet. 0: all well; 1: findings; 2: something could not be checked; 3: the description cannot be used."""
    begun = time.monotonic()
    try:
        described = read(inventory, overlays, limit)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    access, options = logins(described.inventory), _options(inventory, overlays)
    hosts = described.hosts
    with ThreadPoolExecutor(len(hosts)) as pool:
        of_each = list(pool.map(lambda host: ask(described, host, access.get(host.name), options), hosts))
    results = [result for of_one in of_each for result in of_one]
    if json:
        print(as_json(results))
    else:
        show(results, time.monotonic() - begun, Console(highlight=False))
    return exit_status(results)


def ask(described: Description, host: Host, login: Login | None, options: tuple[str, ...]) -> list[Result]:
    """Every check of one host. Never raises for a host that cannot be asked."""
    if login is None:
        return [Result(host.name, CONNECTION, "unknown", UNREACHED, REACH_IT)]
    shell = Shell(login)
    try:
        output = shell.run(f"sh -c {shlex.quote(whole_script(described.fleet, host))}", sudo=True)
    except AccessError as error:
        return [Result(host.name, CONNECTION, "unknown", error.reason, error.remedy)]
    finally:
        shell.close()
    lines = output.splitlines()
    commands = Commands(host.name, login.command, login.sudo, options)
    return examine(
        LiveLook(described.fleet, host, parse(lines), live.parse(lines), int(time.time()), commands, described.cards)
    )


def _options(inventory: Path, overlays: Sequence[str]) -> tuple[str, ...]:
    """What has to be said to `stoker deploy` so that it reads the same description from the same place."""
    chosen = () if inventory == _DEFAULT_INVENTORY else ("-i", str(inventory))
    if list(overlays) == group_data_directories():
        return chosen
    return (*chosen, *(word for overlay in overlays for word in ("--group-data", overlay)))

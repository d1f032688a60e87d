"""``stoker top``: cards and containers of the fleet, renewed."""

from __future__ import annotations

import json as jsonlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stoker.description import CannotStart, read
from stoker.operate.rounds import Rounds
from stoker.operate.screen import again_and_again, show
from stoker.operate.top import HostTop, as_data, parse, script
from stoker.operate.top_view import lines
from stoker.smoke.ssh import Shell, logins
from stoker.spec.fleet import Host

DONE, NOT_ALL, NOT_STARTED = 0, 1, 3

#: Seconds between two looks.
EVERY_SECONDS = 2.0


def top(inventory: Path, overlays: Sequence[str], limit: Sequence[str], once: bool, json: bool) -> int:
    """With ``once``: 0, or 1 when a host did not answer or tells nothing of its cards. Else until Ctrl-C: 130. 3: not begun."""
    try:
        described = read(inventory, overlays, limit)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    rounds = Rounds(described.hosts, logins(described.inventory), _ask, lambda host, reason: HostTop(host.name, reason))
    shown = _as_line if json else lines
    try:
        if not once:
            return again_and_again(rounds.round, shown, EVERY_SECONDS)
        found = rounds.round()
    finally:
        rounds.close()
    console = Console(highlight=False)
    show(shown(found, None), console)
    return NOT_ALL if any(host.error for host in found) else DONE


def _ask(host: Host, shell: Shell) -> HostTop:
    """Raises AccessError."""
    return parse(host, shell.run(f"sh -c {shlex.quote(script(host))}", sudo=True).splitlines())


def _as_line(hosts: Sequence[HostTop], width: int | None) -> list[Text]:
    return [Text(jsonlib.dumps(as_data(hosts)))]

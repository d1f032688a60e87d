"""``stoker status``: one round trip for each host, all hosts at once; ``--watch`` does so again and again."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from stoker.description import CannotStart, Description, read
from stoker.facts.state import HostState, parse
from stoker.operate.rounds import Rounds
from stoker.operate.screen import again_and_again, show
from stoker.smoke.ssh import Shell, logins
from stoker.spec.fleet import Host
from stoker.status import live
from stoker.status.data import HostStatus
from stoker.status.drift import Drift, differs
from stoker.status.judge import combined, judge, unknown
from stoker.status.probe import status_script
from stoker.status.report import as_json, as_line
from stoker.status.table import lines

ALL_READY, NOT_ALL_READY, NOT_STARTED = 0, 1, 3

#: Seconds between two looks of --watch, and between two that also ask what differs from the description.
WATCH_SECONDS, WHOLE_SECONDS = 5.0, 30.0

#: What the images of the lab carry (lab/doubles, lab/real) -> what of their host is simulated; the table must not look like one of
#: real cards and engines.
_SIMULATED = {
    '"stoker.lab":"simulated"': "GPUs and engines are simulated",
    '"stoker.lab":"real-cpu"': "GPUs are simulated, engines are real, on the CPU",
}

#: What a deploy decides by and a glance does not ask; it stays as it was found last.
_BY_ITSELF = (
    *("uid", "time", "driver", "gpu_error", "gpus", "gpu_processes", "gpu_containers"),
    *("docker_version", "docker_error", "containers", "answers"),
)


def status(
    inventory: Path, overlays: Sequence[str] = (), limit: Sequence[str] = (), json: bool = False, watch: bool = False
) -> int:
    """Print the status of the fleet. 0: everything is ready; 1: something is not; 3: the description cannot be used.

    With ``watch`` until KeyboardInterrupt, which is passed on.
    """
    try:
        described = read(inventory, overlays, limit)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    looks = {host.name: _Look(described, host) for host in described.hosts}
    rounds = Rounds(
        described.hosts,
        logins(described.inventory),
        lambda host, shell: looks[host.name].ask(shell),
        lambda host, reason: unknown(described.fleet, host, reason),
    )

    def look() -> list[HostStatus]:
        return combined(described.fleet, rounds.round())

    try:
        if watch:
            return again_and_again(look, as_line if json else lines, WATCH_SECONDS)
        found = look()
    finally:
        rounds.close()
    if json:
        print(as_json(found))
    else:
        console = Console(highlight=False)
        show(lines(found, console.width if console.is_terminal else None), console)
    return ALL_READY if all(host.ready for host in found) else NOT_ALL_READY


class _Look:
    """One host, and what was found there last."""

    def __init__(self, described: Description, host: Host) -> None:
        self._described, self._host = described, host
        self._state = HostState()
        self._drift = Drift()
        self._simulated = ""
        self._whole_at = float("-inf")

    def ask(self, shell: Shell) -> HostStatus:
        """Raises AccessError."""
        fleet, host, cards = self._described.fleet, self._host, self._described.cards
        whole = time.monotonic() - self._whole_at >= WHOLE_SECONDS
        output = shell.run(f"sh -c {shlex.quote(status_script(fleet, host, whole))}", sudo=True)
        rows = output.splitlines()
        state = parse(rows)
        if not whole:
            newer = {name: getattr(state, name) for name in _BY_ITSELF}
            state = replace(self._state, contents={**self._state.contents, **state.contents}, **newer)
        else:
            self._simulated = next((words for label, words in _SIMULATED.items() if label in output), "")
            self._drift = differs(fleet, host, state, int(time.time()), cards)
            self._whole_at = time.monotonic()
        self._state = state
        found = judge(fleet, host, state, live.parse(rows), cards, self._simulated)
        return replace(found, drift=self._drift.found, refused=self._drift.refused)

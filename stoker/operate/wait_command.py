"""``stoker wait``: watch what loads on the fleet until every instance has given a real answer. Changes nothing but the notes of that."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stoker.description import CannotStart, Description, read
from stoker.facts.probe import script
from stoker.facts.state import parse
from stoker.operate.awaited import awaited
from stoker.operate.contact import Contact
from stoker.operate.interrupts import INTERRUPTED, as_keyboard_interrupt
from stoker.operate.places import UnknownName, every, named
from stoker.ready import Board, Outcome, wait_ready
from stoker.ready.limits import limits_of
from stoker.smoke.ssh import AccessError, logins
from stoker.spec.fleet import Host
from stoker.steps.questions import questions

DONE, FAILED, NOT_STARTED = 0, 1, 3


@dataclass(frozen=True)
class Waited:
    """What became of one host: why nothing is known of it, or the outcomes, none when every instance had answered before."""

    host: Host
    error: str = ""
    outcomes: Sequence[Outcome] = ()

    @property
    def ok(self) -> bool:
        return not self.error and all(outcome.ok for outcome in self.outcomes)


def wait(
    inventory: Path, overlays: Sequence[str] = (), limit: Sequence[str] = (), instances: Sequence[str] = ()
) -> int:
    """0: every instance answers; 1: one does not, or its host cannot be asked; 3: not begun; 130: interrupted."""
    try:
        described = read(inventory, overlays, limit)
        wanted = _wanted(described, instances)
    except (*CannotStart, UnknownName) as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    as_keyboard_interrupt()
    board = Board()
    contact = Contact(logins(described.inventory))
    hosts = [host for host in described.hosts if host.name in wanted]
    pool = ThreadPoolExecutor(max(1, len(hosts)))
    board.join([])  # held open until the last host is done: one view, and one summary
    try:
        waiting = [pool.submit(_wait_on, described, host, wanted[host.name], contact, board) for host in hosts]
        found = [one.result() for one in waiting]
    except KeyboardInterrupt:
        board.close()
        print("\nInterrupted; nothing was stopped. Go on watching: stoker wait", file=sys.stderr)
        return INTERRUPTED
    board.leave([])
    contact.close()
    return report(found)


def report(found: Sequence[Waited]) -> int:
    """Print what went wrong, host by host, on stderr. Returns the exit status."""
    for one in found:
        if one.error:
            print(f"{one.host.name}: {one.error}", file=sys.stderr)
        for outcome in one.outcomes:
            if not outcome.ok:
                print(outcome.report(), file=sys.stderr)
    if not any(one.outcomes or one.error for one in found):
        print("Every instance has answered.", file=sys.stderr)
    return DONE if all(one.ok for one in found) else FAILED


def _wanted(described: Description, names: Collection[str]) -> Mapping[str, list[str]]:
    """Host -> the instances that are meant there; all of them when none is named. Raises UnknownName."""
    places = named(described.fleet, names) if names else every(described.fleet)
    gateways = [place.name for place in places if place.instance is None]
    if names and gateways:
        raise UnknownName(f"{', '.join(gateways)}: a gateway loads nothing that could be waited for; name instances.")
    hosts = {host.name for host in described.hosts}
    elsewhere = [place.name for place in places if place.host.name not in hosts]
    if names and elsewhere:
        raise UnknownName(f"{', '.join(elsewhere)}: not on the hosts that --limit names.")
    wanted: dict[str, list[str]] = {}
    for place in places:
        if place.instance:
            wanted.setdefault(place.host.name, []).append(place.instance.name)
    return wanted


def _wait_on(described: Description, host: Host, names: Collection[str], contact: Contact, board: Board) -> Waited:
    """Never raises for a host that cannot be asked."""
    try:
        state = parse(contact.run(host, script(questions(described.fleet, host))).splitlines())
        targets = awaited(host, state, described.cards, names)
    except AccessError as error:
        return Waited(host, f"{error.reason}; {error.remedy}")
    if not targets:
        return Waited(host)
    return Waited(host, outcomes=wait_ready(contact.executing(host), targets, board, limits=limits_of(host.settings)))

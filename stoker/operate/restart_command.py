"""``stoker restart``: looks at the instances, says what it will interrupt, asks, and does it (`restart`)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from stoker.description import CannotStart, Description, read
from stoker.facts.probe import script
from stoker.facts.state import parse
from stoker.models.card import Cards
from stoker.operate.awaited import awaited
from stoker.operate.contact import Contact
from stoker.operate.interrupts import INTERRUPTED, as_keyboard_interrupt, plain_ctrl_c
from stoker.operate.places import Place, UnknownName, named
from stoker.operate.restart import carry_out, planned
from stoker.ready import Board, Outcome, Target, wait_ready
from stoker.ready.limits import limits_of
from stoker.run.drain import Run
from stoker.run.runner import confirmed
from stoker.smoke.ssh import AccessError, logins
from stoker.spec.fleet import Fleet
from stoker.steps.questions import questions

NOT_STARTED = 3

#: Seconds without a word from `docker restart`: an engine may take its grace period to stop.
_RESTART_SECONDS = 600


def restart(inventory: Path, overlays: Sequence[str], names: Sequence[str], *, yes: bool, limit_seconds: int) -> int:
    """0: all answer again; 1: one does not, and what that means was said; 3: not begun; 130: interrupted."""
    try:
        described = read(inventory, overlays)
        places = named(described.fleet, names)
    except (*CannotStart, UnknownName) as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    gateways = [place.name for place in places if place.instance is None]
    if gateways:
        print(
            f"{', '.join(gateways)}: a gateway is not restarted. It takes a new configuration without losing a request, which "
            "`stoker deploy` sees to; a restart would cut every request that runs through it.",
            file=sys.stderr,
        )
        return NOT_STARTED
    as_keyboard_interrupt()
    contact = Contact(logins(described.inventory))
    try:
        return _restart(described, places, contact, yes, limit_seconds)
    except AccessError as error:
        print(f"{error.reason}; {error.remedy}. Nothing was changed.", file=sys.stderr)
        return NOT_STARTED
    except (KeyboardInterrupt, click.Abort):  # before anything was begun
        return INTERRUPTED
    finally:
        contact.close()


def _restart(described: Description, places: Sequence[Place], contact: Contact, yes: bool, limit_seconds: int) -> int:
    """Raises AccessError as long as nothing has been changed."""
    targets = {place.name: _target(described.fleet, described.cards, place, contact.run) for place in places}
    absent = [name for name, target in targets.items() if target is None]
    if absent:
        print(f"{', '.join(absent)}: there is no such container; `stoker deploy` makes it.", file=sys.stderr)
        return NOT_STARTED
    steps = [planned(described.fleet, place, contact.run) for place in places]
    print("Restart, one after the other:")
    for step in steps:
        print(f"  - {step}")
    with plain_ctrl_c():
        agreed = yes or confirmed()
    if not agreed:
        return NOT_STARTED
    board = Board()

    def ready(place: Place) -> Outcome:
        target = targets[place.name]
        assert target is not None
        limits = limits_of(place.host.settings)
        return wait_ready(contact.executing(place.host), [target], board, limits=limits)[0]

    return carry_out(steps, contact.run, lambda place: _start(contact, place), ready, limit_seconds)


def _target(fleet: Fleet, cards: Cards, place: Place, run: Run) -> Target | None:
    """What to wait for; None where there is no container. Raises AccessError, also for what keeps the engine from starting."""
    state = parse(run(place.host, script(questions(fleet, place.host))).splitlines())
    targets = awaited(place.host, state, cards, (place.container,), everything=True)
    return targets[0] if place.container in state.containers else None


def _start(contact: Contact, place: Place) -> None:
    contact.run(place.host, f"docker restart {shlex.quote(place.container)} 2>&1", _RESTART_SECONDS)

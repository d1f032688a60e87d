"""pyinfra's side of the host's state: one round trip, remembered until something changes.

pyinfra 3.10 does not cache facts: without this each of some twenty steps would ask the host again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from pyinfra.api import FactBase, StringCommand

from stoker.facts.probe import script
from stoker.facts.questions import questions
from stoker.facts.state import HostState as State
from stoker.facts.state import parse
from stoker.spec.fleet import Fleet

#: After a pause at a prompt the state may be another one. Seconds.
_FRESH_SECONDS = 10.0


class HostState(FactBase[State]):
    """Everything that Stoker's steps decide by. ``host_name`` is the host's name in the fleet."""

    @staticmethod
    def default() -> State:
        return State()

    def command(self, fleet: Fleet, host_name: str) -> StringCommand:
        return StringCommand(script(questions(fleet, fleet.host(host_name))))

    def process(self, output: Iterable[str]) -> State:
        return parse(output)


@dataclass
class _Remembered:
    state: State
    at: float
    round_trips: int


_remembered: WeakKeyDictionary[Any, _Remembered] = WeakKeyDictionary()


def current(host: Any, fleet: Fleet) -> State:
    """The host's state, asked for only when it is not known or something has been done since."""
    known = _remembered.get(host)
    if known is not None and time.monotonic() - known.at < _FRESH_SECONDS:
        return known.state
    state = host.get_fact(HostState, fleet=fleet, host_name=host.name)
    _remembered[host] = _Remembered(state, time.monotonic(), (known.round_trips if known else 0) + 1)
    return state  # type: ignore[no-any-return]


def forget(host: Any) -> None:
    """Something is about to be changed: ask again before the next decision."""
    known = _remembered.get(host)
    if known is not None:
        known.at = float("-inf")


def pin(host: Any) -> None:
    """Keep the state through the rest of a run in which nothing has changed it."""
    known = _remembered.get(host)
    if known is not None and known.at > float("-inf"):
        known.at = time.monotonic()

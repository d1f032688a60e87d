"""The hosts' states, remembered until something changes.

pyinfra 3.10 does not cache facts: without this each of some twenty steps would ask the host again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from stoker.facts.host_state import HostState as HostStateFact
from stoker.facts.state import HostState
from stoker.spec.fleet import Fleet
from stoker.steps.questions import questions

#: After a pause at a prompt the state may be another one. Seconds.
_FRESH_SECONDS = 10.0


@dataclass
class _Remembered:
    state: HostState
    at: float


_remembered: WeakKeyDictionary[Any, _Remembered] = WeakKeyDictionary()


def current(host: Any, fleet: Fleet) -> HostState:
    """The host's state, asked for only when it is not known or something has been done since."""
    known = _remembered.get(host)
    if known is not None and time.monotonic() - known.at < _FRESH_SECONDS:
        return known.state
    asked = questions(fleet, fleet.host(host.name))
    state: HostState = host.get_fact(HostStateFact, questions=asked)
    _remembered[host] = _Remembered(state, time.monotonic())
    return state


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

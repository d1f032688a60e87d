"""What a check looks at, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.plan.finding import Severity
from stoker.spec.fleet import Host


@dataclass(frozen=True)
class Look:
    """One host as it is described and as it was found. ``now`` is this machine's clock, seconds since the epoch."""

    host: Host
    state: HostState
    now: int
    #: What is known of the models; None: nobody looked, and the checks that rest on it say nothing.
    cards: Cards | None = None
    #: Instances that a deploy is for; it removes nothing then. Empty: all.
    only: tuple[str, ...] = ()
    #: This machine's, for secrets that a deploy brings to the host.
    environment: Mapping[str, str] = field(default_factory=dict)


class Reason(NamedTuple):
    """What a check found: a Finding without the host and the check, which are the caller's."""

    reason: str
    remedy: str
    anchor: str
    severity: Severity = "refuse"
    instance: str = ""


Reasons = Iterator[Reason]
#: Pure; yields nothing where all is well.
Check = Callable[[Look], Reasons]

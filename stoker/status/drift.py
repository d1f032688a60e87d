"""What a deploy would do on a host, for its status. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass

from stoker.doctor.drift import differences, settled
from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.plan.preflight import findings
from stoker.spec.fleet import Fleet, Host


@dataclass(frozen=True)
class Drift:
    """``found``: what each chapter of a deploy would do. None: not compared, because a deploy would be refused for this reason."""

    found: tuple[str, ...] | None = None
    refused: str = ""


def differs(fleet: Fleet, host: Host, state: HostState, now: int, cards: Cards) -> Drift:
    """Compare a host with its description."""
    said = findings(host, settled(state), now, cards=cards, environment=os.environ)
    against = [one for one in said if one.severity == "refuse"]
    if against:
        more = f", and {len(against) - 1} more" if len(against) > 1 else ""
        return Drift(refused=f"{against[0].reason}{more}")
    return Drift(tuple(differences(fleet, host, state)))

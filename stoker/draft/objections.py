"""What a deploy would say of a draft's models on its cards, as far as that is known before it looks. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.plan.checks import compatibility, gpu_memory
from stoker.plan.look import Look, Reason
from stoker.spec.fleet import Host


def objections(host: Host, state: HostState, cards: Cards) -> Iterator[Reason]:
    """Refusals and warnings of the checks that rest on cards, images and models alone."""
    look = Look(host, state, 0, cards)
    for check in (compatibility.check, gpu_memory.check):
        yield from (reason for reason in check(look) if reason.severity != "note")

"""What a run does with a host whose cards it could see only after it had installed the driver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.states import bare, fleet_and_host

from stoker.models.card import load_cards
from stoker.operations import converge
from stoker.run.session import Session

CARDS = load_cards([Path(__file__).resolve().parents[2] / "group_data"])


def test_cards_that_are_seen_late_are_held_against_the_memory_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(one: object) -> None:
        """The description is of cards with half the memory, and so are the cards."""
        one["llm"]["gpus"] = {"count": 3, "card": "V100", "memory_gib": 16}  # type: ignore[index]

    fleet, host = fleet_and_host("llm", smaller)
    found = bare(host)
    found = replace(found, gpus=tuple(replace(gpu, memory_mib=16160) for gpu in found.gpus))
    monkeypatch.setattr(converge, "state", SimpleNamespace(is_executing=True))
    run = Session(fleet, cards=CARDS)
    run.unseen.add(host.name)
    assert "of KV cache: vLLM would refuse to start" in converge.unfit(run, host.name, found)
    assert host.name in run.unseen

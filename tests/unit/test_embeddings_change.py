"""What a deploy says when another embedding model takes the place of one whose vectors are stored."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.fleet import Data
from support.states import NOW, converged, fleet_and_host

from stoker.plan.embeddings import Vectors, change, note, noted
from stoker.plan.preflight import findings


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({}, {"bge-m3": 1024}, ""),
        ({"bge-m3": 1024}, {"bge-m3": 1024}, ""),
        ({"bge-m3": 1024}, {"bge-m3": None}, ""),
        ({"bge-m3": 1024}, {"bge-m3": 1024, "bge-small": 512}, ""),
        ({"bge-m3": 1024}, {}, ""),
        (
            {"bge-m3": 1024},
            {"bge-small": 512},
            "of bge-m3 (1024 values) and will be of bge-small (512 values): a database",
        ),
        ({"bge-m3": 1024}, {"bge-m3": 512}, "of bge-m3 (1024 values) and will be of bge-m3 (512 values)"),
        ({"bge-m3": 1024}, {"bge-large": 1024}, "they are of one length and cannot be compared all the same"),
        ({"bge-m3": 1024}, {"other": None}, "other (unknown length)"),
    ],
)
def test_what_becomes_of_stored_vectors(before: Vectors, now: Vectors, words: str) -> None:
    said = change(before, now)
    assert words in said
    assert bool(said) == bool(words)


def test_a_note_is_read_back_and_anything_else_is_none() -> None:
    assert noted(note({"bge-m3": 1024, "other": None})) == {"bge-m3": 1024, "other": None}
    for text in ("", "[]", "nothing", '{"a": "x"}'):
        assert noted(text) == {}


def test_the_preflight_warns_with_both_lengths() -> None:
    def other(data: Data) -> None:
        data["all"]["models"]["bge-m3"]["dimensions"] = 768

    fleet, host = fleet_and_host("embedding")
    state = converged(fleet, host)
    path = "/opt/stoker/bge-ha/embeddings.json"
    state = replace(state, contents={**state.contents, path: note({"bge-m3": 1024})})
    assert [one for one in findings(host, state, NOW) if one.check == "embeddings"] == []
    _, changed = fleet_and_host("embedding", other)
    (warning,) = [one for one in findings(changed, state, NOW) if one.check == "embeddings"]
    assert warning.severity == "warn"
    assert "1024 values" in warning.reason
    assert "768 values" in warning.reason

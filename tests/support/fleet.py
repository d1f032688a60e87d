"""The default fleet and small variations of it, without pyinfra: for everything that decides by a validated fleet."""

from __future__ import annotations

import copy
import functools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stoker.spec.build import RawHost, build_fleet
from stoker.spec.fleet import Fleet

PROJECT = Path(__file__).resolve().parents[2]
LLM = "192.168.31.10"
EMBEDDING = "192.168.31.65"

#: Data of each group by the group's name: ``all``, ``llm``, ``embedding``.
Data = dict[str, dict[str, Any]]


def default_data() -> Data:
    """A copy of the default group data, for editing."""
    return copy.deepcopy(_data())


@functools.cache
def _data() -> Data:
    return {
        group: {
            name: value
            for name, value in runpy.run_path(str(PROJECT / "group_data" / f"{group}.py")).items()
            if not name.startswith("_")
        }
        for group in ("all", "llm", "embedding")
    }


def make_fleet(change: Callable[[Data], object] = lambda data: None) -> Fleet:
    """The default fleet, after ``change`` has edited a copy of the group data in place."""
    data = default_data()
    change(data)
    return build_fleet(
        [
            RawHost(LLM, {**data["all"], **data["llm"]}, lambda name: "group_data/llm.py"),
            RawHost(EMBEDDING, {**data["all"], **data["embedding"]}, lambda name: "group_data/embedding.py"),
        ]
    )


def instances(data: Data, group: str) -> list[dict[str, Any]]:
    """The instances of a group's first stack, for editing."""
    found: list[dict[str, Any]] = data[group]["stacks"][0]["instances"]
    return found

"""How a clause of the contract is compared, and how an engine's declared deviation from it is.

A clause states what vLLM v0.19.1 shows. An engine of which nothing is declared has to show the same. A declared deviation is
compared as exactly as the contract: it fails when the engine shows a third thing, and also when the engine has come to keep the clause.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pprint import pformat
from typing import Any


class Has:
    """Equal to a text that contains all these parts, in this order."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.search(".*".join(map(re.escape, self.parts)), other, re.DOTALL) is not None

    def __repr__(self) -> str:
        return "a text with " + " ... ".join(map(repr, self.parts))


class Like:
    """Equal to a text that fits this pattern from end to end."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(self.pattern, other, re.DOTALL) is not None

    def __repr__(self) -> str:
        return f"a text like {self.pattern!r}"


class OneOf:
    """Equal to any of these values: for behaviour that differs from run to run and is bounded all the same."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return any(same(value, other) for value in self.values)

    def __repr__(self) -> str:
        return "one of " + pformat(self.values)


@dataclass(frozen=True)
class Deviation:
    """What an engine shows instead of the contract, why, and where that was read or measured."""

    shows: Any
    reason: str
    source: str


@dataclass(frozen=True)
class NotApplicable:
    """Why a clause has nothing to compare with this engine."""

    reason: str
    source: str


Declared = Mapping[str, Deviation | NotApplicable]


def look_up(declared: Declared, clause: str) -> tuple[str, Deviation | NotApplicable | None]:
    """(key, entry) for a clause: its own, else that of the longest `prefix*`, else nothing."""
    if clause in declared:
        return clause, declared[clause]
    stars = [key for key in declared if key.endswith("*") and clause.startswith(key[:-1])]
    if not stars:
        return "", None
    best = max(stars, key=len)
    return best, declared[best]


class Clause:
    """One clause, asked of one engine."""

    def __init__(self, engine: str, name: str, declared: Declared) -> None:
        self.engine, self.name = engine, name
        self.key, self.entry = look_up(declared, name)
        self.checks = 0

    @property
    def not_applicable(self) -> bool:
        return isinstance(self.entry, NotApplicable)

    def check(self, observed: Any, contract: Any) -> None:
        """Fail unless the engine shows the contract's value, or exactly what is declared of it."""
        __tracebackhide__ = True
        self.checks += 1
        if not isinstance(self.entry, Deviation):
            if not same(contract, observed):
                text = f"{self.engine} does not keep the clause {self.name}, and nothing is declared of it"
                raise AssertionError(f"{text}:\n{_difference(contract, observed)}")
        elif same(contract, observed):
            raise AssertionError(
                f"{self.engine} keeps the clause {self.name}: the declared deviation {self.key!r} has to go ({self.entry.reason})"
            )
        elif not same(self.entry.shows, observed):
            text = f"{self.engine} shows neither the clause {self.name} nor the declared deviation {self.key!r}"
            raise AssertionError(f"{text}:\n{_difference(self.entry.shows, observed)}")


def same(expected: Any, observed: Any) -> bool:
    """Equal, where lists and tuples are one kind and a Has, Like or OneOf may stand for any part of `expected`."""
    if isinstance(expected, dict) and isinstance(observed, dict):
        return expected.keys() == observed.keys() and all(same(expected[key], observed[key]) for key in expected)
    if isinstance(expected, list | tuple) and isinstance(observed, list | tuple):
        return len(expected) == len(observed) and all(map(same, expected, observed))
    if isinstance(expected, bool) is not isinstance(observed, bool):
        return isinstance(expected, Has | Like | OneOf) and bool(expected == observed)
    return bool(expected == observed)


def _difference(expected: Any, observed: Any, path: str = "") -> str:
    """The first places where they differ, for a person."""
    if isinstance(expected, dict) and isinstance(observed, dict):
        keys = [key for key in {**expected, **observed} if not same(expected.get(key, _GONE), observed.get(key, _GONE))]
        return "\n".join(
            _difference(expected.get(key, _GONE), observed.get(key, _GONE), f"{path}.{key}") for key in keys
        )
    pair = isinstance(expected, list | tuple) and isinstance(observed, list | tuple)
    if pair and len(expected) == len(observed):
        places = [place for place in range(len(expected)) if not same(expected[place], observed[place])]
        return "\n".join(_difference(expected[place], observed[place], f"{path}[{place}]") for place in places)
    lines = [
        f"  at {path or 'the top'}",
        f"    expected {pformat(expected, width=140)}",
        f"    observed {pformat(observed, width=140)}",
    ]
    if pair and all(isinstance(item, str) for item in [*expected, *observed]):
        lines.append(f"    only expected: {[item for item in expected if item not in observed]}")
        lines.append(f"    only observed: {[item for item in observed if item not in expected]}")
    return "\n".join(lines)


class _Gone:
    def __repr__(self) -> str:
        return "(not there)"


_GONE = _Gone()

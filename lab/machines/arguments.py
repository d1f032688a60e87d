"""The few command-line arguments of the lab's commands; a command's docstring is its help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """A command line: words, flags that were given, values of options that were given."""

    words: tuple[str, ...]
    flags: frozenset[str]
    values: dict[str, str]


def parse(
    usage: str, arguments: Sequence[str], *, words: int = 0, flags: Sequence[str] = (), values: Sequence[str] = ()
) -> Options:
    """Parse a command line with exactly `words` positional words.

    --help prints the usage and ends with 0; anything unknown or missing prints it to stderr and ends with 2.
    """
    found: list[str] = []
    given: set[str] = set()
    valued: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in ("--help", "-h"):
            print(usage.strip())
            sys.exit(0)
        if word in flags:
            given.add(word)
        elif name in values and (equals or rest):
            valued[name] = value if equals else rest.pop(0)
        elif word.startswith("-"):
            _wrong(usage, f"unknown option, or one without its value: {word}")
        else:
            found.append(word)
    if len(found) != words:
        _wrong(usage, f"{words} name(s) needed, {len(found)} given" if words else f"unexpected: {' '.join(found)}")
    return Options(tuple(found), frozenset(given), valued)


def _wrong(usage: str, reason: str) -> None:
    print(f"error: {reason}\n\n{usage.strip()}", file=sys.stderr)
    sys.exit(2)

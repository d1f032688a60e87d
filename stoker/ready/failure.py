"""What a row of the failure catalogue holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """One row of a catalogue.

    `cause` and `remedy` may name groups of `pattern` and keys that `numbers` computes from them, as {name}.
    `heals`: starting again may work although nobody changed anything (a race, a network), so that one restart of
    the container is not yet a verdict. `sign`: the line is only a hint, used when no other row matches anywhere.
    """

    id: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str
    heals: bool = False
    sign: bool = False
    numbers: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None

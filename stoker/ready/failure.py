"""What a row of the failure catalogue holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stoker.engine.registry import NAMES
from stoker.plan.compatibility import engine_version
from stoker.plan.compatibility.image import release
from stoker.plan.memory.predict import Prediction
from stoker.ready.logtext import LogLine


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an instance beside what it printed. All of it may be missing; a diagnosis is then less exact.

    `image` tells the engine's release. `memory` is what was predicted for the instance on its card before the start.
    """

    image: str = ""
    memory: Prediction | None = None


NOTHING = Known()


@dataclass(frozen=True, slots=True)
class Clues:
    """What a row may compute its numbers from: the whole log, and what is known beside it."""

    lines: Sequence[LogLine] = ()
    known: Known = NOTHING

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The newest line that matches."""
        return next((found for line in reversed(self.lines) if (found := pattern.search(line.text))), None)


Groups = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row of a catalogue.

    `cause` and `remedy` may name groups of `pattern` and keys that `numbers` computes from them, as {name}.
    `source`: where the text was seen, and in which release. `since` and `before`: the engine's releases that print it
    and mean this by it, from (inclusive) to below (exclusive); empty: no end is known.
    `heals`: starting again may work although nobody changed anything (a race, a network), so that one restart of
    the container is not yet a verdict. `sign`: the line is only a hint, used when no other row matches anywhere.
    `ordinary`: starts that succeed print it, too; the weakest of hints.
    """

    id: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str
    source: str
    since: str = ""
    before: str = ""
    heals: bool = False
    sign: bool = False
    ordinary: bool = False
    numbers: Callable[[Groups, Clues], Groups] | None = None

    def is_of(self, version: str) -> bool:
        """Whether that release of the engine prints this; an unknown one ("") may."""
        if not version:
            return True
        number = release(version)
        return (not self.since or number >= release(self.since)) and (not self.before or number < release(self.before))


def release_of(engine: str, image: str) -> str:
    """The engine's release as far as the image's name tells it for certain, else ""."""
    if not image or engine not in NAMES:
        return ""
    found = engine_version(image, engine)
    certain = found.newest or not (found.assumed or found.fork)
    return found.version if certain else ""

"""Phases of a start from the lines of a log: pattern, phase, detail."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from stoker.ready.logtext import log_lines
from stoker.ready.phase import Phase, Progress

#: ``detail`` may name the pattern's groups as ``\\1``.
Mark = tuple[re.Pattern[str], Phase, str]


def progress_by(marks: Sequence[Mark]) -> Callable[[str], Progress | None]:
    """The phase that the newest line of a log that matches one of the marks names."""

    def progress(log: str) -> Progress | None:
        for line in reversed(log_lines(log)):
            for pattern, phase, detail in marks:
                found = pattern.search(line.text)
                if found:
                    return Progress(phase, found.expand(detail), line=line.text)
        return None

    return progress

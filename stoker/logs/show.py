"""A line as a person sees it: its time, whose it is, and all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stoker.logs.lines import Line

#: Of the prefixes; red stays for what is wrong.
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)

#: A colour, which may stay, or what could move the cursor, clear something, or make the terminal answer: strings for it that have
#: an end, other control sequences, and whatever control character is left.
_CONTROL = re.compile(
    r"(?P<colour>\x1b\[[0-9;:]*m)"
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[PX\]^_\[]|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class Prefixes:
    """The same width for all. In a pipe a line is shown as it came.

    On a ``terminal`` nothing of it moves the cursor. With ``colour`` there is one for each container, and a line keeps its own.
    """

    def __init__(self, names: Sequence[str], *, terminal: bool, colour: bool) -> None:
        self._width = max(map(len, names), default=0)
        self._colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)} if colour else {}
        self._terminal = terminal

    def shown(self, line: Line) -> str:
        """The time to the millisecond, UTC."""
        head = f"{line.at[:23]}Z {line.name:<{self._width}} |"
        if not self._terminal:
            return f"{head} {line.text}"
        # A terminal would show what stands behind the last carriage return.
        text = self.harmless(line.text.rstrip("\r").rpartition("\r")[2])
        return f"\x1b[{self._colours[line.name]}m{head}\x1b[0m {text}\x1b[0m" if self._colours else f"{head} {text}"

    def harmless(self, text: str) -> str:
        """What a program has printed, as it may be shown here."""
        if not self._terminal:
            return text
        return _CONTROL.sub(lambda found: (found["colour"] or "") if self._colours else "", text)

"""A line as a person sees it: its time, whose it is, and all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stoker.logs.lines import Line

#: Of the prefixes; red stays for what is wrong.
_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)

#: Everything that moves the cursor, clears or sets something (ECMA-48): sequences that an escape begins, but for colours; then single signs.
_CONTROL = re.compile(
    r"\x1b(?!\[[0-9;:]*m)(?:\[[0-?]*[ -/]*[@-~]?|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)"
    r"|\x9b[0-?]*[ -/]*[@-~]?|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


class Prefixes:
    """The same width for all. A ``terminal`` gets nothing but text, and with ``colour`` each container's own and the line's; all else
    gets a line as it came."""

    def __init__(self, names: Sequence[str], terminal: bool, colour: bool) -> None:
        self._terminal = terminal
        self._width = max(map(len, names), default=0)
        self._colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)} if colour else {}

    def shown(self, line: Line) -> str:
        """The time to the millisecond, UTC."""
        head = f"{line.at[:23]}Z {line.name:<{self._width}} |"
        if not self._terminal:
            return f"{head} {line.text}"
        # A terminal would show what stands behind the last carriage return.
        text = _CONTROL.sub("", line.text.rstrip("\r").rpartition("\r")[2])
        if not self._colours:
            return f"{head} {_COLOUR.sub('', text)}"
        return f"\x1b[{self._colours[line.name]}m{head}\x1b[0m {text}\x1b[0m"

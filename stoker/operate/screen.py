"""A view that is renewed: in place on a terminal, one below the other elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stoker.operate.interrupts import INTERRUPTED, as_keyboard_interrupt

T = TypeVar("T")


def show(lines: Sequence[Text], console: Console) -> None:
    """Every line whole, however narrow the terminal is."""
    for line in lines:
        console.print(line, soft_wrap=True)


def again_and_again(
    look: Callable[[], T],
    lines: Callable[[T, int | None], Sequence[Text]],
    seconds: float,
    console: Console | None = None,
) -> int:
    """Look and show until Ctrl-C; returns INTERRUPTED. ``lines`` is given what was seen and the width of the terminal.

    On a terminal the last view stays when it ends. In a pipe the views follow each other, with an empty line between them if they
    have several lines, and no control characters.
    """
    console = console or Console(highlight=False)
    shown: Sequence[Text] = ()
    as_keyboard_interrupt()
    try:
        if not console.is_terminal:
            while True:
                begun = time.monotonic()
                shown = lines(look(), None)
                show(shown if len(shown) == 1 else [*shown, Text()], console)
                sys.stdout.flush()
                _pause(begun, seconds)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                begun = time.monotonic()
                shown = [_cut(line, console.width) for line in lines(look(), console.width)]
                live.update(Text("\n").join(shown), refresh=True)
                _pause(begun, seconds)
    except KeyboardInterrupt:
        if console.is_terminal:
            show(shown, console)
        return INTERRUPTED


def _cut(line: Text, width: int) -> Text:
    cut = line.copy()
    cut.truncate(width, overflow="ellipsis")
    return cut


def _pause(begun: float, seconds: float) -> None:
    time.sleep(max(0.2, begun + seconds - time.monotonic()))

"""Log lines as llama-server writes them to stderr at its default verbosity: the time since the start, a level, who says it."""

from __future__ import annotations

import sys
import time

_STARTED = time.monotonic()


def log(level: str, text: str) -> None:
    """One line, for instance `0.00.006.826 I ggml_cuda_init: ...`: minutes, seconds, milli- and microseconds."""
    microseconds = int((time.monotonic() - _STARTED) * 1e6)
    seconds = microseconds // 1_000_000
    stamp = f"{seconds // 60}.{seconds % 60:02d}.{microseconds // 1000 % 1000:03d}.{microseconds % 1000:03d}"
    print(f"{stamp} {level} {text}", file=sys.stderr, flush=True)


def said_by(part: str, function: str, text: str, level: str = "I") -> None:
    """A line of the server (`srv`), of the code that all programs share (`cmn`) or of a slot; the function's name is cut to 12 signs."""
    log(level, f"{part:<4} {function[:12]:>12}: {text}")


def plain(text: str) -> None:
    """A line without time and level: written before there is a log."""
    print(text, file=sys.stderr, flush=True)

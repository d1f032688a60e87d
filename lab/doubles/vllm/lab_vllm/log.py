"""Log lines in the layout of vLLM v0.19.1: to stdout, process prefix, level, time, file and line of the original message."""

from __future__ import annotations

import os
import sys
import time


class Log:
    """Writes the lines of one process, for instance `(EngineCore pid=7) INFO 11-21 03:00:59 [core.py:106] ...`.

    An empty process name gives lines without the prefix, as vLLM's own before its server has started.
    """

    def __init__(self, process: str = "") -> None:
        self.prefix = f"({process} pid={os.getpid()}) " if process else ""

    def info(self, place: str, message: str) -> None:
        self._write("INFO", place, message)

    def debug(self, place: str, message: str) -> None:
        self._write("DEBUG", place, message)

    def warning(self, place: str, message: str) -> None:
        self._write("WARNING", place, message)

    def error(self, place: str, message: str) -> None:
        self._write("ERROR", place, message)

    def plain(self, message: str) -> None:
        """A line that does not come from vLLM's logger (uvicorn's access log)."""
        sys.stdout.write(f"{self.prefix}{message}\n")
        sys.stdout.flush()

    def raw_error(self, text: str) -> None:
        """Text that the interpreter writes to stderr (tracebacks), each line with the process prefix."""
        for line in text.rstrip("\n").split("\n"):
            sys.stderr.write(f"{self.prefix}{line}\n")
        sys.stderr.flush()

    def progress(self, text: str, *, end: bool = False) -> None:
        """A progress bar: redrawn in its line by a carriage return, as tqdm writes it to stderr."""
        sys.stderr.write(f"\r{self.prefix}{text}" if not end else f"\r{self.prefix}{text}\n")
        sys.stderr.flush()

    def _write(self, level: str, place: str, message: str) -> None:
        head = f"{self.prefix}{level} {time.strftime('%m-%d %H:%M:%S')} [{place}] "
        sys.stdout.write("".join(f"{head}{line}\n" for line in message.split("\n")))
        sys.stdout.flush()


def progress_bar(title: str, done: int, total: int, elapsed: float, *, unit: str = "it") -> str:
    """The text of a tqdm bar without a width, as in a container's log."""
    remaining = elapsed / done * (total - done) if done else 0.0
    rate = f"{elapsed / done:.2f}s/{unit}" if done else f"?{unit}/s"
    left = _clock(remaining) if done else "?"
    return f"{title}: {100 * done // total:3d}% Completed | {done}/{total} [{_clock(elapsed)}<{left}, {rate}]"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"

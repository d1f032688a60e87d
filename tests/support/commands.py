"""Programs run by the lab's tests, each with a time limit."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]

_POLL_SECONDS = 0.2

Value = TypeVar("Value")


@dataclass(frozen=True)
class Done:
    """The end of a program. ``seconds`` is wall time."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        """Everything that it said."""
        return self.out + self.err

    def __str__(self) -> str:
        return f"$ {' '.join(self.argv)}\n{self.text}\nexit status {self.code} after {self.seconds:.1f} s"


def run(
    *argv: str, seconds: float = 60, cwd: Path = ROOT, env: Mapping[str, str] | None = None, stdin: str = ""
) -> Done:
    """Run a program to its end; the test fails when that takes longer than ``seconds``."""
    with start(*argv, cwd=cwd, env=env) as process:
        return finish(process, seconds, stdin=stdin)


def start(*argv: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a program in a session of its own (no terminal). Hand it to :func:`finish`."""
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    process.begun = time.monotonic()  # type: ignore[attr-defined]
    return process


def finish(process: subprocess.Popen[str], seconds: float, stdin: str = "") -> Done:
    """Wait for the end of a started program; kill it and fail when that takes longer than ``seconds``."""
    late = False
    try:
        out, err = process.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
        out, err = process.communicate()
    begun: float = process.begun  # type: ignore[attr-defined]
    argv = process.args
    assert isinstance(argv, Sequence)
    done = Done(tuple(map(str, argv)), process.returncode, out, err, time.monotonic() - begun)
    if late:
        pytest.fail(f"no end within {seconds:.0f} s, killed:\n{done}")
    return done


def finish_with_times(process: subprocess.Popen[str], seconds: float) -> tuple[Done, list[tuple[float, str]]]:
    """The same, for a program that says little on its standard output; and when (Unix time) it said each line of its errors."""
    assert process.stderr
    lines: list[tuple[float, str]] = []
    killer = threading.Timer(seconds, process.kill)
    killer.start()
    try:
        lines += ((time.time(), line) for line in process.stderr)
    finally:
        killer.cancel()
    done = finish(process, 10)
    return replace(done, err="".join(line for _, line in lines)), lines


def wait_for(what: str, condition: Callable[[], Value], seconds: float = 30) -> Value:
    """Ask until the condition holds and return what it said; the test fails after ``seconds``."""
    limit = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > limit:
            pytest.fail(f"not within {seconds:.0f} s: {what}; last seen: {found!r}")
        time.sleep(_POLL_SECONDS)

"""Running programs of this computer."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from types import FrameType
from typing import IO, Any

from lab.machines.errors import LabError

_running: set[subprocess.Popen[Any]] = set()
_running_lock = threading.Lock()

LINES_OF_AN_ERROR = 8
LENGTH_OF_A_COMMAND = 160


def run(
    argv: Sequence[str],
    *,
    what: str = "",
    stdin: bytes | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program and return it with its output as text.

    `what` is the step in a person's words, for the error. `timeout` is in seconds.
    Raises LabError with the last lines of its output when it fails (unless check is False), is missing or takes too long.
    """
    feed = stdin if isinstance(stdin, bytes) else None
    source = subprocess.PIPE if isinstance(stdin, bytes) else (stdin or subprocess.DEVNULL)
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    except FileNotFoundError:
        raise LabError(f"{what or argv[0]}: the program {argv[0]} is not installed") from None
    with _running_lock:
        _running.add(process)
    try:
        out, err = process.communicate(feed, timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise LabError(f"{what or argv[0]}: no end after {timeout:.0f} s: {' '.join(argv)}") from None
    finally:
        with _running_lock:
            _running.discard(process)
    done = subprocess.CompletedProcess(
        list(argv), process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
    )
    if check and done.returncode != 0:
        raise LabError(failure(done, what))
    return done


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a program and hand on every line of its output as it comes. Raises LabError with the last lines when it fails."""
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        cwd=cwd,
        text=True,
        errors="replace",
    )
    with _running_lock:
        _running.add(process)
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=2)  # the lines before have been seen
    with process.stdout:
        for line in process.stdout:
            last.append(line.rstrip())
            on_line(line.rstrip())
    process.wait()
    with _running_lock:
        _running.discard(process)
    if process.returncode != 0:
        raise LabError(failure(subprocess.CompletedProcess(list(argv), process.returncode, "\n".join(last), ""), what))


def failure(done: subprocess.CompletedProcess[str], what: str) -> str:
    """The message for a program that failed: the step, the command, the exit code and the last lines it said."""
    said = (done.stderr.strip() or done.stdout.strip() or "(no output)").splitlines()[-LINES_OF_AN_ERROR:]
    command = shorten(" ".join(done.args), LENGTH_OF_A_COMMAND, placeholder=" ...")
    return f"{what or done.args[0]}: exit code {done.returncode} of: {command}\n    " + "\n    ".join(said)


def stop_children_when_stopped() -> None:
    """On SIGTERM end the programs this process waits for and behave as on Ctrl-C: no half-built step goes on alone."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        with _running_lock:
            for process in _running:
                process.terminate()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)

"""Long-running programs that the lab starts, found again by a pid file, and ended by that pid only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.machines.errors import LabError

POLL_SECONDS = 0.05


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again until the condition holds; False when it still does not after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def owned_pid(pid_file: Path, mark: str) -> int | None:
    """The process that a pid file names, if it lives and is ours.

    Numbers are used again, after a restart of the computer above all: a process counts only if `mark` is in its command line.
    """
    try:
        pid = int(pid_file.read_text())
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if mark.encode() in command_line else None


def start(argv: Sequence[str], log: Path, pid_file: Path) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to `log`, its pid written to `pid_file`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    pid_file.write_text(f"{process.pid}\n")
    return process


def stop(pid: int, seconds: float) -> None:
    """End a process: SIGTERM, and SIGKILL if it still lives after `seconds`. Raises LabError if even that does not end it."""
    for number, limit in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if wait_until(lambda: not _lives(pid), limit):
            return
    raise LabError(f"process {pid} does not end, not even by SIGKILL; look at it with: ps -f -p {pid}")


def _lives(pid: int) -> bool:
    """Whether the process runs; one that has ended and only waits for its parent does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"

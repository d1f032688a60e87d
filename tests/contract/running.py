"""A running engine: its processes, its log, its signals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 60.0  # for whatever has to happen soon; generous, because the machine may be busy


def wait_for(condition: Callable[[], Any], what: str, seconds: float = LIMIT_SECONDS) -> Any:
    """Poll until the condition is true; its value."""
    limit = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


class Running:
    """An engine that was started, in a session of its own; all its output is in one file."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path, port: int) -> None:
        self.log, self.port = log, port
        self.url = f"http://127.0.0.1:{port}"
        self.outcomes: list[Any] = []  # of the requests while it loaded, each kind once, in order
        self.port_held: set[bool] = set()  # was the port bound while it loaded
        self.retired = False  # told to end: its place may be given to another
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.log.read_bytes().decode(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait_exit(self, seconds: float = LIMIT_SECONDS) -> int:
        """Exit code; of one that a signal ended 128 + its number, as a container shows it."""
        code = self.process.wait(seconds)
        return 128 - code if code < 0 else code

    def pids(self) -> list[int]:
        """The living processes of its session."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return found

    def engine_pids(self) -> list[int]:
        """Those of them that compute."""
        return [pid for pid in self.pids() if b"EngineCore" in _command_line(pid)]

    def listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def holds_port(self) -> bool:
        """Is the port bound, whether or not anything listens on it yet."""
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", self.port))
            except OSError:
                return True
        return False

    def stop(self) -> None:
        """End whatever of it is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT_SECONDS)
        wait_for(lambda: not self.pids(), "the engine's processes are gone")


class Entered(Running):
    """An engine behind lab/real/enter: the process that was started only watches over the engine's first one."""

    def signal(self, number: int) -> None:
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            os.kill(int(pid), number)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

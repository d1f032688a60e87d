"""Inventories in a temporary directory: the project's own, edited, and read as `stoker` reads them.

pyinfra's loader patches the standard library for gevent, which would change the threads and sockets of every later test,
and it remembers compiled files by name. So a process of its own reads the descriptions: it imports pyinfra once and
forks for each description (20 ms instead of half a second).
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import shutil
import struct
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stoker.spec.fleet import Fleet
from stoker.spec.problems import Problem

PROJECT = Path(__file__).resolve().parents[2]
TESTS = PROJECT / "tests"


@dataclass(frozen=True)
class Answer:
    """What `load_fleet` returned, or the problems that it raised, or the traceback of any other exception."""

    fleet: Fleet | None = None
    problems: tuple[Problem, ...] = ()
    message: str = ""
    crash: str = ""


@dataclass
class Description:
    """A copy of the project's inventory and group data, for editing."""

    folder: Path

    @classmethod
    def copy(cls, folder: Path) -> Description:
        shutil.copy(PROJECT / "inventory.py", folder)
        shutil.copytree(PROJECT / "group_data", folder / "group_data", ignore=shutil.ignore_patterns("__pycache__"))
        return cls(folder)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text that occurs exactly once."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def append(self, file: str, text: str) -> None:
        path = self.folder / file
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(before + text, encoding="utf-8")

    def ask(self, overlays: Sequence[str] = (), inventory: str = "inventory.py") -> Answer:
        return _reader().ask(self.folder, inventory, overlays)

    def load(self, overlays: Sequence[str] = (), inventory: str = "inventory.py") -> Fleet:
        answer = self.ask(overlays, inventory)
        assert answer.fleet is not None, answer.message or answer.crash
        return answer.fleet

    def problems(self, overlays: Sequence[str] = (), inventory: str = "inventory.py") -> tuple[Problem, ...]:
        answer = self.ask(overlays, inventory)
        assert not answer.crash, answer.crash
        assert answer.problems, "the description was accepted"
        return answer.problems


class _Reader:
    """The other process, and the pipes to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.description"], cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        atexit.register(self.close)

    def ask(self, *request: object) -> Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        _send(self.process.stdin, request)
        answer = _receive(self.process.stdout)
        assert isinstance(answer, Answer)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=10)


@functools.cache
def _reader() -> _Reader:
    return _Reader()


def _send(pipe: IO[bytes], message: object) -> None:
    data = pickle.dumps(message)
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(pipe.read(struct.unpack("<Q", head)[0]))


def _answer(folder: Path, inventory: str, overlays: Sequence[str]) -> Answer:
    from stoker.inventory import load_fleet
    from stoker.spec.problems import SpecError

    os.chdir(folder)
    try:
        return Answer(fleet=load_fleet(Path(inventory), list(overlays)))
    except SpecError as error:
        return Answer(problems=tuple(error.problems), message=str(error))
    except BaseException:
        return Answer(crash=traceback.format_exc())


def serve() -> None:
    import pyinfra_cli.inventory  # noqa: F401  (before anything else: it patches the standard library)

    import stoker.inventory  # noqa: F401

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a description prints may get between the answers
    while True:
        try:
            request = _receive(sys.stdin.buffer)
        except EOFError:
            return
        child = os.fork()
        if not child:
            _send(answers, _answer(*request))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    sys.modules["support.description"] = sys.modules["__main__"]  # so that its classes are pickled under their name
    Answer.__module__ = "support.description"
    serve()

"""Runs functions in processes that have imported pyinfra and Stoker already: 20 ms each instead of half a second.

pyinfra's command line patches the standard library for gevent, which would change the threads and sockets of every later test,
and it remembers files by name. So one process beside the tests imports everything once and forks for each call.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import pickle
import posix
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

TESTS = Path(__file__).resolve().parents[1]
#: What starts gevent's event loop when it is imported must not be here: a loop does not survive the fork.
_PRELOADED = ("pyinfra_cli.main", "stoker.cli", "stoker.run.runner", "stoker.operations.ready")


@dataclass(frozen=True)
class Call:
    """A function by module and name, its arguments, and the surroundings that it sees. Files take what it prints."""

    module: str
    function: str
    arguments: tuple[object, ...] = ()
    cwd: Path = TESTS
    environment: Mapping[str, str] | None = None
    argv: tuple[str, ...] = ()
    stdout: Path = Path(os.devnull)
    stderr: Path = Path(os.devnull)


@dataclass(frozen=True)
class Result:
    status: int  #: exit status of the process, 0 when the function returned
    value: Any = None


def call(wanted: Call) -> Result:
    """Run a function in a process of its own."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    _send(server.stdin, wanted)
    found = _receive(server.stdout)
    assert isinstance(found, Result)
    return found


@functools.cache
def _server() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from support import forked; forked.serve()"]
    server = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )

    def close() -> None:
        assert server.stdin is not None
        server.stdin.close()
        server.wait(timeout=10)

    atexit.register(close)
    return server


def _send(pipe: IO[bytes], message: object) -> None:
    data = pickle.dumps(message)
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(pipe.read(struct.unpack("<Q", head)[0]))


def serve() -> None:
    import pyinfra_cli  # noqa: F401  (before anything else: it patches the standard library)

    for name in _PRELOADED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that is printed may get between the answers
    while True:
        try:
            wanted: Call = _receive(sys.stdin.buffer)
        except EOFError:
            return
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _run(wanted, writer)
        posix.close(writer)  # not os.close: gevent's waits for its event loop, and the read below would wait for that
        with os.fdopen(reader, "rb") as pipe:
            value = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _send(answers, Result(status, pickle.loads(value) if value else None))


def _run(wanted: Call, writer: int) -> None:
    """In the child: never returns."""
    os.chdir(wanted.cwd)
    if wanted.environment is not None:
        os.environ.clear()
        os.environ.update(wanted.environment)
    for number, path in ((0, Path(os.devnull)), (1, wanted.stdout), (2, wanted.stderr)):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
    sys.argv = [*wanted.argv] or sys.argv
    status = 0
    try:
        value = getattr(importlib.import_module(wanted.module), wanted.function)(*wanted.arguments)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(pickle.dumps(value))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

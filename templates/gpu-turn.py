#!/usr/bin/env python3
"""Start an inference engine when it is this container's turn on its GPU.

Two vLLM instances that load together on one GPU take each other's memory for their own and fail, or end with too
little KV cache (seen in v0.19.1). Docker's restart policy knows no order, so each container orders itself: as the
container's first process this program takes an exclusive lock on a file that stands for the GPU, starts the engine,
and lets the lock go as soon as the engine answers, or when it ends. The lock is an flock: the kernel drops it when
its holder dies, however it dies.

    gpu-turn.py --lock FILE [--lock FILE ...] [--health URL] [--max-hold SECONDS] -- PROGRAM [ARGUMENT ...]

Several locks (an engine on several GPUs) are taken in sorted order, so that two engines cannot wait for each other.
Signals go to the engine; the exit code is the engine's (128 + n when signal n ended it, 127 when there is no such
program). While waiting, SIGTERM ends the wait with exit code 143. Needs only Python 3.10's standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import http.client
import os
import signal
import sys
import time
import urllib.parse

POLL_SECONDS = 0.25  # how often a taken lock is tried again, and a starting engine asked
TELL_SECONDS = 5.0  # how often a waiting start says so
HEALTH_TIMEOUT_SECONDS = 1.0
KILL_WAIT_SECONDS = 10.0  # for what the engine leaves behind to be gone

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
HANDLED = frozenset({*FORWARDED, signal.SIGCHLD})
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
SI_KERNEL = 0x80  # si_code of a signal that the terminal sent to the whole process group, the engine included


def say(text: str) -> None:
    # One write: lines of the engine's processes must not fall into it.
    os.write(1, f"stoker: {text}\n".encode())


class Locks:
    """The locks of the engine's GPUs."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = sorted(set(paths))
        self.held: list[int] = []

    def names(self) -> str:
        return ", ".join(os.path.basename(path) for path in self.paths)

    def take_next(self) -> bool:
        """Try the first lock that is not held yet. True when all are held."""
        while len(self.held) < len(self.paths):
            # Read-only, because the directory is mounted so; close-on-exec (Python's default), so that the engine
            # does not inherit the lock and hold it for ever.
            number = os.open(self.paths[len(self.held)], os.O_RDONLY)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(number)
                if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
                    return False
                raise
            self.held.append(number)
        return True

    def wanted(self) -> str:
        return os.path.basename(self.paths[len(self.held)])

    def release(self) -> None:
        for number in self.held:
            os.close(number)
        self.held = []


def wait_for_turn(locks: Locks) -> int | None:
    """Wait until all locks are held. Returns the exit code when a signal ended the wait, else None."""
    begun = time.monotonic()
    told = begun - TELL_SECONDS
    while not locks.take_next():
        now = time.monotonic()
        if now - told >= TELL_SECONDS:
            told = now
            say(f"waiting for the GPU (lock {locks.wanted()}) for {now - begun:.0f} s")
        got = signal.sigtimedwait(HANDLED, POLL_SECONDS)
        if got and got.si_signo in ENDING:
            say(f"{signal.Signals(got.si_signo).name} while waiting for the GPU, ending")
            return 128 + got.si_signo
    say(f"GPU lock taken after {time.monotonic() - begun:.1f} s")
    return None


def answers(url: str) -> bool:
    """Does the engine answer 200? Asked directly, whatever proxy the environment names."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "127.0.0.1", parts.port or 80, timeout=HEALTH_TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start(command: list[str]) -> int:
    """Start the engine with the signal state of a fresh process. Returns its pid."""
    # Python ignores SIGPIPE and SIGXFSZ; an ignored signal would be inherited.
    return os.posix_spawnp(command[0], command, os.environ, setsigmask=(), setsigdef=(signal.SIGPIPE, signal.SIGXFSZ))


def reap(engine: int) -> int | None:
    """Collect every child that has ended (as process 1 also orphans). The engine's exit code when it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == engine:
            ended = os.waitstatus_to_exitcode(status)
            code = 128 - ended if ended < 0 else ended


def forward(got: signal.struct_siginfo, engine: int) -> None:
    if got.si_signo in FORWARDED and got.si_code != SI_KERNEL:
        with contextlib.suppress(ProcessLookupError):  # it has just ended; its SIGCHLD follows
            os.kill(engine, got.si_signo)


def watch(engine: int, locks: Locks, health: str | None, max_hold: float) -> int:
    """Serve the engine until it ends; let the locks go at its first answer. Returns its exit code."""
    begun = time.monotonic()
    while True:
        got = signal.sigtimedwait(HANDLED, POLL_SECONDS) if locks.held else signal.sigwaitinfo(HANDLED)
        if got:
            forward(got, engine)
        code = reap(engine)
        if code is not None:
            return code
        if not locks.held:
            continue
        held = time.monotonic() - begun
        if health and answers(health):
            # Said first: the next one may have the lock, and say so, before this process runs again.
            say(f"engine answers, GPU lock released after {held:.1f} s")
            locks.release()
        elif held > max_hold:
            locks.release()
            say(f"engine does not answer after {held:.0f} s, GPU lock released so that others can start")


def end_the_rest() -> None:
    """As process 1: end what the engine left behind and wait for it, because it may still hold GPU memory."""
    if os.getpid() != 1:
        return
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        return
    limit = time.monotonic() + KILL_WAIT_SECONDS
    while time.monotonic() < limit:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                signal.sigtimedwait(HANDLED, 0.05)
        except ChildProcessError:
            return


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gpu-turn.py", description=__doc__.splitlines()[0])
    parser.add_argument("--lock", action="append", required=True, help="a file that stands for one GPU; repeatable")
    parser.add_argument("--health", help="http URL; the first answer 200 ends this start's turn")
    parser.add_argument(
        "--max-hold", type=float, default=3600.0, help="seconds after which a silent engine loses its turn (3600)"
    )
    # Split by hand: Python releases differ in what argparse does with "--" and what follows it.
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:at])
    command = arguments[at + 1 :]
    if not command:
        parser.error("no engine given: gpu-turn.py --lock FILE -- PROGRAM [ARGUMENT ...]")

    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    locks = Locks(options.lock)
    say(f"start, locks {locks.names()}")
    try:
        ended = wait_for_turn(locks)
    except OSError as error:
        say(f"cannot open the lock {error.filename or locks.paths[len(locks.held)]}: {error.strerror}")
        return 1
    if ended is not None:
        return ended
    try:
        engine = start(command)
    except OSError as error:
        say(f"cannot start {command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126
    code = watch(engine, locks, options.health, options.max_hold)
    end_the_rest()
    if locks.held:
        say(f"engine ended with exit code {code}, GPU lock released")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

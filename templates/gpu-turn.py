#!/usr/bin/env python3
"""Start an inference engine when it is this container's turn on its GPU.

Two vLLM instances that load together on one GPU take each other's memory for their own and fail, or end with too
little KV cache (seen in v0.19.1). Docker's restart policy knows no order, so each container orders itself: as the
container's first process this program takes an exclusive lock on a file that stands for the GPU, starts the engine,
and lets the lock go as soon as the engine answers, or when it ends. The lock is an flock: the kernel drops it when
its holder dies, however it dies. What stands in the file says who took it last, for those who wait.

    gpu-turn.py --lock FILE [--lock FILE ...] [--health URL] [--max-hold SECONDS] [--weights DIRECTORY]
                [--cache DIRECTORY] -- PROGRAM [ARGUMENT ...]

Several locks (an engine on several GPUs) are taken in sorted order, so that two engines cannot wait for each other.

The wait is used: once the holder has read its weights and compiles, the weights of the one that waits are read into
the host's page cache. --cache is emptied when it has grown beyond a bound, by the one whose turn it is.

Signals go to the engine; the exit code is the engine's (128 + n when signal n ended it, 127 when there is no such
program). While waiting, SIGTERM ends the wait with exit code 143. Needs only Python 3.10's standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import http.client
import json
import mmap
import os
import shutil
import signal
import sys
import time
import urllib.parse

POLL_SECONDS = 0.25  # how often a taken lock is tried again, and a starting engine asked
TELL_SECONDS = 5.0  # how often a waiting start says so
HEALTH_TIMEOUT_SECONDS = 1.0
KILL_WAIT_SECONDS = 10.0  # for what the engine leaves behind to be gone

LOOK_SECONDS = 1.0  # how often a waiting start looks whether the holder has read its weights
IN_MEMORY = 0.9  # share of a model's weights in the page cache from which they count as read: a loader may skip some
HEADROOM_BYTES = 4 << 30  # memory of the host that reading ahead leaves free, for the engines' own processes
CHUNK_BYTES = 4 << 20
CACHE_LIMIT_BYTES = 4 << 30  # some tens of models' compiled graphs
NOTE_BYTES = 512  # fixed size, so that a note is one write and nobody reads half of it
WEIGHTS = (".safetensors", ".bin", ".pt")  # the first of these that a model has is what engines load

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


def open_lock(path: str) -> int:
    """Open for reading and writing; only for reading where the directory is mounted so, as it was in older containers.

    Close-on-exec (Python's default), so that the engine does not inherit the lock and hold it for ever.
    """
    try:
        return os.open(path, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        return os.open(path, os.O_RDONLY)


class Locks:
    """The locks of the engine's GPUs. ``note`` is written into each that is taken."""

    def __init__(self, paths: list[str], note: dict[str, object]) -> None:
        self.paths = sorted(set(paths))
        self.note = note
        self.held: list[int] = []

    def names(self) -> str:
        return ", ".join(os.path.basename(path) for path in self.paths)

    def take_next(self) -> bool:
        """Try the first lock that is not held yet. True when all are held."""
        while len(self.held) < len(self.paths):
            number = open_lock(self.paths[len(self.held)])
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(number)
                if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
                    return False
                raise
            self.held.append(number)
            with contextlib.suppress(OSError):  # opened for reading only; the note is a help, the lock is what counts
                text = json.dumps({**self.note, "since": round(time.time(), 1)})
                os.pwrite(number, text.ljust(NOTE_BYTES - 1).encode() + b"\n", 0)
        return True

    def wanted(self) -> str:
        return os.path.basename(self.paths[len(self.held)])

    def holder(self) -> dict[str, object]:
        """What the holder of the wanted lock has noted: ``name``, ``weights``, ``since``. Empty when it has not."""
        try:
            with open(self.paths[len(self.held)], encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def release(self) -> None:
        for number in self.held:
            os.close(number)
        self.held = []


def weight_files(directory: object) -> list[str]:
    """The files of a model that an engine loads into the GPU."""
    try:
        names = sorted(os.listdir(str(directory))) if directory else []
    except OSError:
        return []
    for ending in WEIGHTS:
        found = [os.path.join(str(directory), name) for name in names if name.endswith(ending)]
        if found:
            return found
    return []


def size_of(files: list[str]) -> int:
    return sum(os.path.getsize(path) for path in files)


def resident_bytes(files: list[str]) -> int:
    """How much of these files is in the page cache, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    found = 0
    for path in files:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                continue
            where = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        if where == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap", path)
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        if libc.mincore(where, size, pages) == 0:
            found += min(size, pages.raw.count(b"\x01") * mmap.PAGESIZE)
        libc.munmap(where, size)
    return found


def available_bytes() -> int:
    """Memory of the host that can be had without swapping, by /proc/meminfo."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


def gib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB"


class ReadAhead:
    """Reads the engine's weights into the page cache while it waits, when that costs the holder nothing.

    It begins when the holder's own weights are there, so that the two do not share the disk, and only if the host's
    memory holds both. Weights that are there already, as those of a neighbour with the same model are, are not read.
    """

    def __init__(self, directory: str) -> None:
        self.files = weight_files(directory)
        self.decided = not self.files
        self.looked = float("-inf")
        self.begun = 0.0
        self.reader = 0

    def look(self, locks: Locks) -> None:
        """Begin when it is time. Cheap: looks once a second, and no more when it has begun or cannot."""
        now = time.monotonic()
        if self.decided or now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        try:
            self.decide(weight_files(locks.holder().get("weights")), locks)
        except (OSError, StopIteration) as error:
            self.decided = True
            say(f"weights are not read ahead: {error}")

    def decide(self, theirs: list[str], locks: Locks) -> None:
        of_the_holder = size_of(theirs)
        if not theirs or resident_bytes(theirs) < IN_MEMORY * of_the_holder:
            return
        self.decided = True
        size = size_of(self.files)
        missing = size - resident_bytes(self.files)
        if missing <= (1 - IN_MEMORY) * size:
            return
        needed, available = missing + of_the_holder + HEADROOM_BYTES, available_bytes()
        if needed > available:
            say(f"weights are not read ahead: that needs {gib(needed)} of free memory, and {gib(available)} are free")
            return
        say(f"reading {gib(missing)} of weights ahead, while the holder compiles")
        self.begun = time.monotonic()
        self.reader = os.fork()
        if not self.reader:
            locks.release()  # of several locks the first may be held: it must not live on in the reader
            read_quietly(self.files)

    def ended(self) -> None:
        """Say so when the reader is through."""
        if not self.reader:
            return
        pid, status = os.waitpid(self.reader, os.WNOHANG)
        if pid:
            self.reader = 0
            end = "weights read ahead in" if status == 0 else "reading weights ahead failed after"
            say(f"{end} {time.monotonic() - self.begun:.1f} s")

    def stop(self) -> None:
        """The engine reads for itself now, or there will be none."""
        self.ended()
        if self.reader:
            os.kill(self.reader, signal.SIGKILL)
            os.waitpid(self.reader, 0)
            self.reader = 0
            say(f"weights read ahead in part, for {time.monotonic() - self.begun:.1f} s")


def read_quietly(files: list[str]) -> None:
    """Read the files, as long as the process that wants them lives, and end this process."""
    parent, code = os.getppid(), 1
    try:
        # With it goes the kernel's idle class for the disk, where its scheduler knows one (ioprio_set(2)).
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        chunk = bytearray(CHUNK_BYTES)
        for path in files:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(chunk) and os.getppid() == parent:
                    pass
        code = 0
    finally:
        os._exit(code)


def wait_for_turn(locks: Locks, ahead: ReadAhead) -> int | None:
    """Wait until all locks are held. Returns the exit code when a signal ended the wait, else None."""
    begun = time.monotonic()
    told = begun - TELL_SECONDS
    while not locks.take_next():
        now = time.monotonic()
        if now - told >= TELL_SECONDS:
            told = now
            say(f"waiting for the GPU (lock {locks.wanted()}) for {now - begun:.0f} s{held_by(locks.holder())}")
        ahead.look(locks)
        got = signal.sigtimedwait(HANDLED, POLL_SECONDS)
        ahead.ended()
        if got and got.si_signo in ENDING:
            ahead.stop()
            say(f"{signal.Signals(got.si_signo).name} while waiting for the GPU, ending")
            return 128 + got.si_signo
    ahead.stop()
    say(f"GPU lock taken after {time.monotonic() - begun:.1f} s")
    return None


def held_by(holder: dict[str, object]) -> str:
    since = holder.get("since")
    if not isinstance(since, (int, float)):
        return ""
    return f", held by {holder.get('name')} for {max(0.0, time.time() - since):.0f} s"


def bound(directory: str) -> None:
    """Empty a cache that has grown too large. To be called in turn, so that no other start on this GPU uses it."""
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # an engine that serves may write here too
                size += os.lstat(os.path.join(folder, name)).st_size
    if size <= CACHE_LIMIT_BYTES:
        return
    say(f"the cache {directory} has {gib(size)}, more than {gib(CACHE_LIMIT_BYTES)}: emptied")
    for entry in os.scandir(directory):
        shutil.rmtree(entry.path, ignore_errors=True)


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
    parser.add_argument("--weights", default="", help="the model's directory, read ahead while another engine loads")
    parser.add_argument("--cache", default="", help="the engine's cache, emptied when it is too large")
    options = parser.parse_args(arguments[:at])
    command = arguments[at + 1 :]
    if not command:
        parser.error("no engine given: gpu-turn.py --lock FILE -- PROGRAM [ARGUMENT ...]")

    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    name = os.environ.get("STOKER_INSTANCE") or os.uname().nodename
    locks = Locks(options.lock, {"name": name, "weights": options.weights})
    say(f"start, locks {locks.names()}")
    try:
        ended = wait_for_turn(locks, ReadAhead(options.weights))
    except OSError as error:
        say(f"cannot open the lock {error.filename or locks.paths[len(locks.held)]}: {error.strerror}")
        return 1
    if ended is not None:
        return ended
    if options.cache:
        bound(options.cache)
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

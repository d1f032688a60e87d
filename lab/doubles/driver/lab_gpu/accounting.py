"""GPU memory accounting: one file per allocation, locked by its holder for as long as the holder lives.

A holder that dies loses its flock (the kernel drops it), so its allocation is stale, ignored and removed, as a real driver frees the
memory of a dead process. The files are shared by host and containers through the bind mount of the state directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TypedDict

from lab_gpu import paths
from lab_gpu.machine import Gpu

MIB = 1024 * 1024
RECORD_BYTES = 512  # fixed size, so that an update is one write and no reader sees half of it


class Held(TypedDict):
    """One living allocation. pid is in the reader's PID namespace, 0 where the holder is not visible there."""

    pid: int
    name: str
    bytes: int
    owner: str


class Allocation:
    """Memory of one process on one card; freed by close() or by the end of the process."""

    def __init__(self, gpu: Gpu, name: str) -> None:
        self._name = name
        self._owner = os.environ.get("STOKER_INSTANCE") or os.uname().nodename
        self.size = 0  # bytes held
        directory = paths.allocations_dir(gpu["uuid"])
        os.makedirs(directory, exist_ok=True)
        token = os.urandom(8).hex()
        hidden = os.path.join(directory, f".{token}")
        self._path = os.path.join(directory, f"{token}.json")
        self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.set(0)
        os.rename(hidden, self._path)

    def set(self, size: int) -> None:
        """Hold `size` bytes from now on."""
        self.size = int(size)
        record = {"name": self._name, "bytes": self.size, "owner": self._owner}
        os.pwrite(self._file, json.dumps(record).ljust(RECORD_BYTES).encode(), 0)

    def close(self) -> None:
        """Free the memory."""
        if self._file >= 0:
            os.unlink(self._path)
            os.close(self._file)
            self._file = -1


def held(gpu: Gpu) -> list[Held]:
    """Living allocations on a card, oldest first; files of dead holders are removed on the way."""
    directory = paths.allocations_dir(gpu["uuid"])
    try:
        names = [name for name in os.listdir(directory) if name.endswith(".json")]
    except FileNotFoundError:
        return []
    holders = _lock_holders()
    result: list[tuple[float, Held]] = []
    for name in names:
        path = os.path.join(directory, name)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if not _is_locked(handle):
                _remove(path)
                continue
            about = os.fstat(handle)
            record = json.loads(os.pread(handle, RECORD_BYTES, 0))
            pid = holders.get(about.st_ino, 0)
            entry: Held = {"pid": pid, "name": record["name"], "bytes": record["bytes"], "owner": record["owner"]}
            result.append((about.st_ctime_ns, entry))
        finally:
            os.close(handle)
    return [entry for _, entry in sorted(result, key=lambda pair: pair[0])]


def used_bytes(gpu: Gpu) -> int:
    """Bytes in use on the card by all processes."""
    return sum(entry["bytes"] for entry in held(gpu))


def free_bytes(gpu: Gpu) -> int:
    """Bytes a CUDA program would see as free (cudaMemGetInfo)."""
    return gpu["usable_mib"] * MIB - used_bytes(gpu)


def _is_locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # another reader was first, or the directory is read-only here
        os.unlink(path)


def _lock_holders() -> dict[int, int]:
    """inode -> PID of the flock holder, from /proc/locks (PIDs are those of this PID namespace)."""
    holders: dict[int, int] = {}
    try:
        with open("/proc/locks", encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) >= 6 and fields[1] == "FLOCK" and fields[3] == "WRITE":
                    holders[int(fields[5].rsplit(":", 1)[1])] = max(int(fields[4]), 0)
    except OSError:
        pass
    return holders

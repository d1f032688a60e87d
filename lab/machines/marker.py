"""Whose lab is up, and one command at a time that changes it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.machines.errors import LabError
from lab.machines.paths import LOCK, ROOT, RUN, UP_MARKER

OWNER = RUN / "owner"
"""Written before anything is started, so that another checkout does not touch a lab that is not its own."""


@contextmanager
def only_one(command: str) -> Iterator[None]:
    """Hold the lab's lock. Raises LabError naming the command that holds it; the kernel frees a killed command's lock."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LabError(
                f"another command is at work on the lab: {file.read().strip() or 'unknown'}; wait for it to end"
            ) from None
        file.truncate(0)
        file.write(f"{command} (process {os.getpid()}, checkout {ROOT})")
        file.flush()
        yield


def claim() -> None:
    """Say that the lab on this computer belongs to this checkout. Raises LabError when another checkout's lab is up."""
    other = owner()
    if other and other != ROOT:
        raise LabError(
            f"the lab of another checkout is up on this computer: {other}\n"
            f"    There can be one at a time, since the addresses are fixed. Stop that one with: {other}/lab/down"
        )
    RUN.mkdir(parents=True, exist_ok=True)
    OWNER.write_text(json.dumps({"checkout": str(ROOT), "boot": _boot()}))


def owner() -> Path | None:
    """The checkout whose lab was started since the computer's start, or None."""
    return _checkout(OWNER)


def is_up() -> bool:
    """Whether a lab/up of this checkout has come to its end since the computer's start."""
    return _checkout(UP_MARKER) == ROOT


def set_up() -> None:
    """Note that the lab is up."""
    UP_MARKER.write_text(json.dumps({"checkout": str(ROOT), "boot": _boot()}))


def clear_up() -> None:
    """Note that the lab is being changed; it is not up before set_up."""
    UP_MARKER.unlink(missing_ok=True)


def _checkout(file: Path) -> Path | None:
    try:
        noted = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return Path(noted["checkout"]) if noted["boot"] == _boot() else None


def _boot() -> str:
    """Differs after every start of the computer; where /run is on a disk, files in it do not."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

"""One thing that has to be done on a host."""

from __future__ import annotations

import base64
import hashlib
import io
import shlex
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stoker.facts.state import HostState


class Shell(Protocol):
    """Runs a script on the host with the host's privileges; ``(succeeded, output lines)``."""

    def __call__(self, script: str, *, stdin: str | None = None) -> tuple[bool, list[str]]: ...


class Say(Protocol):
    """Tells the person what is going on, with the host's name in front."""

    def __call__(self, text: str) -> None: ...


@dataclass(frozen=True)
class Action:
    """What is done, in words, and how: a script, a script that takes long, or a function."""

    description: str
    script: str = ""
    stdin: str | None = None
    #: Script that may take minutes: it runs detached, survives a lost connection, and its last line is shown.
    long: bool = False
    #: The image that a long script pulls by `stoker.steps.pull`: it gets a row of the live view.
    image: str = ""
    #: Called instead of a script. Returns what went wrong, or None.
    function: Callable[[Shell, Say], str | None] | None = None
    #: What stops working while it is done, for the plan that the person confirms.
    interrupts: str = ""

    def __str__(self) -> str:
        return f"{self.description} (INTERRUPTS {self.interrupts})" if self.interrupts else self.description


@dataclass(frozen=True)
class File:
    """A file as it must be on the host."""

    path: str
    text: str
    mode: str = "644"

    def is_on(self, state: HostState) -> bool:
        found = state.files.get(self.path)
        return (
            found is not None
            and found.kind == "regular file"
            and found.mode == self.mode
            and found.owner == "root"
            and found.digest == hashlib.sha256(self.text.encode()).hexdigest()
        )


def write_files(files: Sequence[File], root: str, check: str = "", after: str = "") -> tuple[str, str]:
    """Script and input that put a set of files in place together.

    They arrive in one archive in a private directory below ``root`` (same file system, mode 0700 by mktemp from the first
    byte). ``check`` runs with ``$new`` naming it, and its failure leaves everything as it was; then each file replaces the
    old one by a rename.
    ``after`` runs when all are in place. Every path must lie below ``root``.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file in files:
            data = file.text.encode()
            entry = tarfile.TarInfo(file.path.removeprefix(root).lstrip("/"))
            entry.size, entry.mode = len(data), int(file.mode, 8)
            tar.addfile(entry, io.BytesIO(data))
    lines = [
        "set -e",
        "umask 022",
        f"mkdir -p {shlex.quote(root)}",
        f"new=$(mktemp -d {shlex.quote(root)}/.stoker-new.XXXXXX)",
        "trap 'rm -rf \"$new\"' EXIT",
        'base64 -d | tar -xzf - --no-same-owner -p -C "$new"',
    ]
    if check:
        lines.append(check)
    for file in files:
        relative = file.path.removeprefix(root).lstrip("/")
        directory = file.path.rpartition("/")[0]
        lines.append(f"mkdir -p {shlex.quote(directory)}")
        lines.append(f'mv -fT "$new"/{shlex.quote(relative)} {shlex.quote(file.path)}')
    if after:
        lines.append(after)
    return "\n".join(lines), base64.b64encode(archive.getvalue()).decode()

"""Ollama's own management behind a gateway: one path for each member and call, for administrators only.

The path names the member, because a call changes or shows one instance: balanced over a pool it would reach any of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

_READ = ("GET", "HEAD")

#: Calls of Ollama 0.32 (server/routes.go), and `/`, by which its own client looks whether a server is there; nginx would redirect the
#: form without a slash. Not among them: /api/blobs, which takes files of any size, and what a pool's own paths offer.
CALLS: dict[str, tuple[str, ...]] = {
    "": _READ,
    "/": _READ,
    "/api/version": _READ,
    "/api/tags": _READ,
    "/api/ps": _READ,
    "/api/show": ("POST",),
    "/api/pull": ("POST",),
    "/api/push": ("POST",),
    "/api/create": ("POST",),
    "/api/copy": ("POST",),
    "/api/delete": ("DELETE",),
}

#: A pull without a stream is silent until it ends, and a large model takes its time.
READ_SECONDS = 6 * 3600

#: Status for "not an administrator" inside nginx, where 403 is "not from an allowed network". Clients get 403.
REFUSED = 460


class _Numbered(Protocol):
    """A member as the templates have it."""

    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def pool(self) -> str: ...
    @property
    def engine(self) -> str: ...


@dataclass(frozen=True)
class Call:
    """One path, which the member sees as ``target``."""

    path: str
    target: str
    methods: tuple[str, ...]
    member: _Numbered


def calls(members: Iterable[_Numbered]) -> list[Call]:
    """Every call to every Ollama, in the members' order."""
    return [
        Call(f"/admin/{member.name}{call}", call or "/", methods, member)
        for member in members
        if member.engine == "ollama"
        for call, methods in CALLS.items()
    ]

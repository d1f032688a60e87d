"""What `docker logs --timestamps` prints, as lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: Docker keeps a longer line in pieces of this size, and `docker logs` puts the time before each of them (moby, daemon/logger/copier.go,
#: defaultBufSize, and the log writer of its API; the pieces have the time of the first).
PIECE_BYTES = 16 * 1024

_TIMED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) ")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one container. ``at`` is Docker's time with nine digits: texts that compare as times."""

    at: str
    name: str
    text: str


def split(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines without their end, out of whatever comes; the rest at the end too."""
    rest: list[bytes] = []  # not joined before the line ends: a long one comes in many parts
    for part in parts:
        first, *more = part.split(b"\n")
        rest.append(first)
        for line in more:
            yield b"".join(rest)
            rest = [line]
    if any(rest):
        yield b"".join(rest)


def read(name: str, raw: bytes) -> Line | None:
    """None for what is Docker's own word and no container's: it has no time."""
    found = _TIMED.match(raw)
    if not found:
        return None
    return Line(found[1].decode(), name, _joined(raw, found[0]).decode("utf-8", "replace"))


def _joined(raw: bytes, head: bytes) -> bytes:
    """The text, with the times taken out that stand before each piece of a long line."""
    pieces: list[bytes] = []
    at = len(head)
    while True:
        end = at + PIECE_BYTES
        if raw[end : end + len(head)] != head:
            return b"".join([*pieces, raw[at:]])
        pieces.append(raw[at:end])
        at = end + len(head)

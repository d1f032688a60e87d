"""How far an instance has come on its way from container to answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Phase(enum.IntEnum):
    """In the order in which a start passes through them."""

    PULLING = -1  # an image, before there is a container
    NO_CONTAINER = 0
    WAITING_FOR_GPU = 1
    STARTING = 2
    LOADING = 3
    COMPILING = 4
    PROFILING = 5
    KV_CACHE = 6
    CAPTURING = 7
    SERVING = 8
    ASKED = 9
    READY = 10
    FAILED = 11

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Phase.PULLING: "pulling the image",
    Phase.NO_CONTAINER: "not running",
    Phase.WAITING_FOR_GPU: "waiting for the GPU",
    Phase.STARTING: "starting",
    Phase.LOADING: "loading weights",
    Phase.COMPILING: "compiling",
    Phase.PROFILING: "measuring memory",
    Phase.KV_CACHE: "making the KV cache",
    Phase.CAPTURING: "capturing CUDA graphs",
    Phase.SERVING: "server up",
    Phase.ASKED: "asked for a first answer",
    Phase.READY: "ready",
    Phase.FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """A phase, what is known about its inside, and its share done (0 to 100) where the engine tells it.

    `line` is the line of the log that said so: another line that says the same is progress all the same.
    """

    phase: Phase
    detail: str = ""
    percent: float | None = None
    line: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        return f"{self.phase.words}: {self.detail}" if self.detail else self.phase.words

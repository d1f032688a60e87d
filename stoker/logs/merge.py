"""Lines of several containers in the order of time, with bounded memory."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator

from stoker.logs.lines import Line

#: Seconds that a line waits for an older one of another host.
WINDOW_SECONDS = 0.5
#: Lines that wait at most.
MOST = 5000


def merged(streams: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """Streams that end, each in order: one line of each is held at a time."""
    return heapq.merge(*streams, key=lambda line: line.at)


class Window:
    """Streams that go on: each line waits a little for older ones. A line that comes later than that comes late, but it comes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: list[tuple[str, int, float, Line]] = []
        self._count = 0

    def add(self, line: Line) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (line.at, self._count, self._clock(), line))

    def due(self) -> Iterator[Line]:
        """Lines that have waited, oldest first."""
        now = self._clock()
        while self._waiting and (len(self._waiting) > MOST or now - self._waiting[0][2] >= WINDOW_SECONDS):
            yield heapq.heappop(self._waiting)[3]

    def rest(self) -> Iterator[Line]:
        while self._waiting:
            yield heapq.heappop(self._waiting)[3]

"""Asks all hosts the same, all at once, once or again and again. No host delays the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from stoker.smoke.ssh import UNREACHED, AccessError, Login, Shell
from stoker.spec.fleet import Host

#: Seconds for one answer. An address where nobody answers is told by the connection itself, after 5 s.
LIMIT_SECONDS = 8.0

T = TypeVar("T")


@dataclass(frozen=True)
class _Lost:
    reason: str


class Rounds(Generic[T]):
    """Connections stay open between rounds; one that fails is made anew in the next round.

    ``ask`` is given a host and its shell and may raise AccessError; ``lost`` makes an answer of a host that gave none, and a reason.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        access: Mapping[str, Login],
        ask: Callable[[Host, Shell], T],
        lost: Callable[[Host, str], T],
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        self._hosts, self._access, self._ask, self._lost = hosts, access, ask, lost
        self._limit = limit_seconds
        self._shells: dict[str, Shell] = {}
        self._running: dict[str, Future[T | _Lost]] = {}
        self._lost_ones: dict[str, str] = {}  # host -> why it gave no answer the last time
        self._pool = ThreadPoolExecutor(len(hosts))

    def round(self) -> list[T]:
        """One answer of each host, in their order. A host that still owes an answer is not asked again before it has given it, and one
        that gave none the last time is not waited for: until it answers, why it did not is told again."""
        for host in self._hosts:
            if host.name not in self._running:
                self._running[host.name] = self._pool.submit(self._one, host)
        wait([future for name, future in self._running.items() if name not in self._lost_ones], self._limit)
        return [self._answer(host) for host in self._hosts]

    def close(self) -> None:
        """Does not wait for hosts that owe an answer."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for name, shell in self._shells.items():
            if name not in self._running:
                shell.close()

    def _answer(self, host: Host) -> T:
        future = self._running[host.name]
        if future.done():
            del self._running[host.name]
            self._lost_ones.pop(host.name, None)
            found = future.result()
            if not isinstance(found, _Lost):
                return found
            self._lost_ones[host.name] = found.reason
        elif host.name not in self._lost_ones:
            self._lost_ones[host.name] = (
                f"no answer within {self._limit:g} s; see whether the host is overloaded or hangs"
            )
        return self._lost(host, self._lost_ones[host.name])

    def _one(self, host: Host) -> T | _Lost:
        login = self._access.get(host.name)
        if login is None:
            return _Lost(UNREACHED)
        shell = self._shells.setdefault(host.name, Shell(login))
        try:
            return self._ask(host, shell)
        except AccessError as error:
            del self._shells[host.name]
            shell.close()
            return _Lost(f"{error.reason}; {error.remedy}")

"""Asks all hosts the same, all at once, once or again and again. No host delays the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from stoker.smoke.ssh import AccessError, Login, Shell
from stoker.spec.fleet import Host

#: Seconds for one answer. An address where nobody answers is told by the connection itself, after 5 s.
LIMIT_SECONDS = 6.0

T = TypeVar("T")


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
        self._running: dict[str, Future[T]] = {}
        self._pool = ThreadPoolExecutor(len(hosts))

    def round(self) -> list[T]:
        """One answer of each host, in their order. A host that still owes an answer is not asked again before it has given it."""
        for host in self._hosts:
            if host.name not in self._running:
                self._running[host.name] = self._pool.submit(self._one, host)
        wait(self._running.values(), self._limit)
        return [self._answer(host) for host in self._hosts]

    def close(self) -> None:
        """Does not wait for hosts that owe an answer."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for name, shell in self._shells.items():
            if name not in self._running:
                shell.close()

    def _answer(self, host: Host) -> T:
        future = self._running[host.name]
        if not future.done():
            return self._lost(host, f"no answer within {self._limit:g} s; see whether the host is overloaded or hangs")
        del self._running[host.name]
        return future.result()

    def _one(self, host: Host) -> T:
        login = self._access.get(host.name)
        if login is None:
            return self._lost(host, "it is not reached by SSH")
        shell = self._shells.setdefault(host.name, Shell(login))
        try:
            return self._ask(host, shell)
        except AccessError as error:
            del self._shells[host.name]
            shell.close()
            return self._lost(host, f"{error.reason}; {error.remedy}")

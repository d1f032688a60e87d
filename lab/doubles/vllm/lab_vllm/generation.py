"""The running slots that requests queue for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from lab_gpu import settings

from lab_vllm.metrics import Metrics

DEFAULT_TOKEN_MS = 5.0


class EngineDeadError(Exception):
    """The engine process ended while the sequence ran; the text is vLLM's."""

    def __init__(self) -> None:
        super().__init__("EngineCore encountered an issue. See stack trace (above) for the root cause.")


@dataclass(eq=False)
class Request:
    """One sequence that runs or waits."""

    prompt_tokens: int
    max_tokens: int
    arrived: float = field(default_factory=time.monotonic)
    produced: int = 0
    abort: asyncio.Event = field(default_factory=asyncio.Event)


class Scheduler:
    """At most max_num_seqs sequences run at once; others wait in order."""

    def __init__(self, slots: int, cache_tokens: int, metrics: Metrics, served_names: list[str]) -> None:
        self.free = asyncio.Semaphore(slots)
        self.cache_tokens = cache_tokens
        self.metrics = metrics
        self.served_names = served_names
        self.running: set[Request] = set()
        self.waiting: set[Request] = set()
        self.frozen = False
        self.dead = False

    @property
    def unfinished(self) -> int:
        return len(self.running) + len(self.waiting)

    def cache_usage(self) -> float:
        """Share of the KV cache in use, 0 to 1."""
        used = sum(request.prompt_tokens + request.produced for request in self.running)
        return min(used / self.cache_tokens, 1.0) if self.cache_tokens else 0.0

    async def never(self) -> None:
        """Wait for ever, like a request in a hung engine; the client's leaving cancels it."""
        await asyncio.Event().wait()

    def freeze(self) -> None:
        """Running sequences get no further token and no end."""
        self.frozen = True

    def fail_all(self) -> None:
        """The engine is gone: every sequence ends with EngineDeadError."""
        self.dead = True
        self.abort_all()

    def abort_all(self) -> None:
        """End every sequence with finish_reason "abort"."""
        for request in [*self.running, *self.waiting]:
            request.abort.set()

    async def run(self, request: Request, words: list[str], final: str) -> AsyncIterator[tuple[str, str | None]]:
        """(piece, finish reason or None) for each token; the last has the reason "stop", "length" or "abort"."""
        self.waiting.add(request)
        try:
            got = asyncio.ensure_future(self.free.acquire())
            aborted = asyncio.ensure_future(request.abort.wait())
            await asyncio.wait({got, aborted}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if got.done() and not got.cancelled():
                self.free.release()
            got.cancel()
            raise
        finally:
            self.waiting.discard(request)
            aborted.cancel()
        if request.abort.is_set():
            if got.done():
                self.free.release()
            got.cancel()
            self._raise_if_dead()
            yield "", "abort"
            return
        self.running.add(request)
        reason = "abort"
        started = time.monotonic()
        first = last = started
        try:
            for position, word in enumerate(words):
                await self._pace(request)
                if request.abort.is_set():
                    self._raise_if_dead()
                    yield "", "abort"
                    return
                now = time.monotonic()
                request.produced += 1
                if position == 0:
                    first = now
                    self.metrics.first_token(request.prompt_tokens, now - request.arrived)
                else:
                    self.metrics.next_token(now - last)
                last = now
                done = position == len(words) - 1
                if done:
                    reason = final
                yield word, final if done else None
        finally:
            self.running.discard(request)
            self.free.release()
            # A client that left, and an engine that died, are counted nowhere (abort_requests of output_processor.py).
            if reason != "abort" or (request.abort.is_set() and not self.dead):
                self.metrics.finished(request, reason, started=started, first=first, last=last)

    def _raise_if_dead(self) -> None:
        if self.dead:
            raise EngineDeadError

    async def _pace(self, request: Request) -> None:
        if self.frozen:
            await self.never()
        fault, value = settings.fault(*self.served_names)
        delay = settings.number("token_ms", DEFAULT_TOKEN_MS) / 1000
        if fault == "slow-tokens":
            delay = float(value or 1000) / 1000
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(request.abort.wait(), delay)

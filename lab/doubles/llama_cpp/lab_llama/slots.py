"""The server's slots: a request waits for one, holds it while it runs, and is counted for /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from lab_gpu import settings

from lab_llama.log import said_by

DEFAULT_TOKEN_MS = 5.0


@dataclass
class Timing:
    """One request's work, as `timings` of its answer states it."""

    prompt_tokens: int
    started: float = field(default_factory=time.monotonic)
    first: float = 0.0
    last: float = 0.0
    produced: int = 0

    @property
    def prompt_seconds(self) -> float:
        return max((self.first or time.monotonic()) - self.started, 1e-6)

    @property
    def seconds(self) -> float:
        return max(self.last - self.first, 1e-6)

    def shown(self) -> dict[str, float]:
        """`timings`."""
        prompt, predicted = self.prompt_seconds * 1000, self.seconds * 1000
        return {
            "cache_n": 0,
            "prompt_n": self.prompt_tokens,
            "prompt_ms": prompt,
            "prompt_per_token_ms": prompt / max(self.prompt_tokens, 1),
            "prompt_per_second": self.prompt_tokens / prompt * 1000,
            "predicted_n": self.produced,
            "predicted_ms": predicted,
            "predicted_per_token_ms": predicted / max(self.produced, 1),
            "predicted_per_second": self.produced / predicted * 1000,
        }


class Slots:
    """`count` requests run at once; the others are deferred, in order."""

    def __init__(self, count: int, names: tuple[str, ...]) -> None:
        self.free, self.names, self.count = list(range(count)), names, count
        self.waiting: list[asyncio.Future[None]] = []
        self.running = 0
        self.tasks = 0
        self.frozen = False
        """Requests that run get no further token and no end: the server is told to stop."""
        self.totals = {"prompt": 0, "predicted": 0, "decodes": 0, "longest": 0}
        self.seconds = {"prompt": 0.0, "predicted": 0.0}

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[tuple[int, int]]:
        """(slot, task) while the request runs."""
        if not self.free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self.waiting:
                    self.waiting.remove(turn)
                else:
                    self._pass_on()
                raise
        number, task = self.free.pop(), self.tasks
        self.tasks += 1
        self.running += 1
        said_by("slot", "get_available_slot", f"id {number:2d} | task -1 | selected slot by LRU, t_last = -1")
        said_by("slot", "launch_slot_", f"id {number:2d} | task {task} | processing task, is_child = 0")
        try:
            yield number, task
        finally:
            self.running -= 1
            self.free.append(number)
            self._pass_on()

    def _pass_on(self) -> None:
        if self.waiting and self.free:
            turn = self.waiting.pop(0)
            if not turn.done():
                turn.set_result(None)

    async def generate(self, words: list[str], timing: Timing) -> AsyncGenerator[str, None]:
        """The words one by one, in a slot."""
        async with self.slot() as (number, task):
            try:
                for word in words:
                    await self._pace()
                    timing.last = time.monotonic()
                    timing.first = timing.first or timing.last
                    timing.produced += 1
                    yield word
            finally:
                self._count(timing)
                tokens = timing.prompt_tokens + timing.produced
                said_by(
                    "slot",
                    "release",
                    f"id {number:2d} | task {task} | stop processing: n_tokens = {tokens - 1}, truncated = 0",
                )

    def count_prompt(self, tokens: int, seconds: float) -> None:
        """A prompt that was processed without a reply: an embedding."""
        self._count(Timing(tokens, time.monotonic() - seconds))

    def _count(self, timing: Timing) -> None:
        self.totals["prompt"] += timing.prompt_tokens
        self.totals["predicted"] += timing.produced
        self.totals["decodes"] += max(timing.produced, 1)
        self.totals["longest"] = max(self.totals["longest"], timing.prompt_tokens + timing.produced)
        self.seconds["prompt"] += timing.prompt_seconds
        self.seconds["predicted"] += timing.seconds if timing.produced else 0.0

    async def _pace(self) -> None:
        if self.frozen:
            await asyncio.Event().wait()
        fault, value = settings.fault(*self.names)
        delay = settings.number("token_ms", DEFAULT_TOKEN_MS) / 1000
        await asyncio.sleep(float(value or 1000) / 1000 if fault == "slow-tokens" else delay)

    def metrics(self) -> str:
        """/metrics, in Prometheus' text format."""
        total, seconds = self.totals, self.seconds
        counters = {
            "prompt_tokens_total": ("Number of prompt tokens processed, excluding cached tokens", total["prompt"]),
            "prompt_tokens_cached_total": ("Number of prompt tokens reused from the cache", 0),
            "prompt_seconds_total": ("Total time spent processing prompts", seconds["prompt"]),
            "tokens_predicted_total": ("Number of generation tokens processed", total["predicted"]),
            "tokens_predicted_seconds_total": ("Total time spent generating tokens", seconds["predicted"]),
            "n_decode_total": (
                "Total number of llama_decode() calls, excluding speculative decoding and multimodal decoding",
                total["decodes"],
            ),
            "n_tokens_max": ("Largest observed sequence length (prompt + generation)", total["longest"]),
            "spec_decode_num_draft_tokens_total": ("Speculative: Total draft tokens generated", 0),
            "spec_decode_num_accepted_tokens_total": (
                "Speculative: Total draft tokens accepted by the target model",
                0,
            ),
            "spec_decode_num_drafts_total": ("Speculative: Total speculative decoding verification steps", 0),
        }
        gauges = {
            "prompt_tokens_seconds": (
                "Average prompt throughput in tokens/s",
                _rate(total["prompt"], seconds["prompt"]),
            ),
            "predicted_tokens_seconds": (
                "Average generation throughput in tokens/s",
                _rate(total["predicted"], seconds["predicted"]),
            ),
            "requests_processing": ("Number of requests processing", self.running),
            "requests_deferred": ("Number of requests deferred", len(self.waiting)),
            "n_busy_slots_per_decode": (
                "Average number of busy slots per llama_decode() call",
                1 if total["decodes"] else 0,
            ),
        }
        lines = []
        for kind, rows in (("counter", counters), ("gauge", gauges)):
            for name, (text, value) in rows.items():
                lines += [
                    f"# HELP llamacpp:{name} {text}",
                    f"# TYPE llamacpp:{name} {kind}",
                    f"llamacpp:{name} {value:g}",
                ]
        return "\n".join(lines) + "\n"


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0

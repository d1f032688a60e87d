"""The model in memory: loading, GPU accounting, keep-alive, and one slot that embeds."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lab_gpu import accounting, settings
from lab_serve.tokens import tokenize
from lab_serve.vectors import vector

from lab_ollama.devices import Device
from lab_ollama.log import log
from lab_ollama.store import StoredModel

GIB = 1024**3
# bge-m3 F16 in llama-server on a P40: weights 1.08 GiB, the rest context and buffers (1.5 to 2 GiB by report).
OVERHEAD_BYTES = GIB // 2
FOREVER = timedelta(days=365 * 290)
DEFAULT_LOAD_SECONDS = 1.5
DEFAULT_EMBED_MS = 20.0
MAX_EMBEDDING_BATCH = 2048  # DefaultEmbeddingNumBatch since 0.30


class RunnerError(Exception):
    """An answer with a status code."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Loaded:
    """A resident model."""

    model: StoredModel
    num_ctx: int
    num_batch: int
    size: int
    size_vram: int
    held: accounting.Allocation | None
    keep_alive: timedelta
    expires: datetime

    @property
    def limit(self) -> int:
        """Most tokens that one text may have."""
        return min(self.num_ctx, self.num_batch)


class Runner:
    """Holds at most one model (OLLAMA_MAX_LOADED_MODELS=1); embedding models have one slot whatever OLLAMA_NUM_PARALLEL says."""

    def __init__(self, device: Device, keep_alive: timedelta) -> None:
        self.device, self.keep_alive = device, keep_alive
        self.loaded: Loaded | None = None
        self.slot = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    async def ensure(
        self, model: StoredModel, options: dict[str, Any], keep_alive: timedelta | None
    ) -> tuple[Loaded, float]:
        """The model resident with these options, and the seconds its load took. Call with the slot held. Raises RunnerError."""
        num_ctx, num_batch = self._sizes(model, options)
        current = self.loaded
        same = (
            current
            and current.model.digest == model.digest
            and (current.num_ctx, current.num_batch) == (num_ctx, num_batch)
        )
        if current and same:
            self._renew(current, keep_alive)
            return current, 0.0
        self.unload()
        began = time.monotonic()
        self.loaded = await self._load(model, num_ctx, num_batch, keep_alive or self.keep_alive)
        self._renew(self.loaded, keep_alive)
        return self.loaded, time.monotonic() - began

    def _sizes(self, model: StoredModel, options: dict[str, Any]) -> tuple[int, int]:
        given = {**model.parameters, **options}
        # Also what the library's own parameters ask for: nomic-embed-text:v1.5 has num_ctx 8192 and a context of 2048.
        trained = int(model.simulated.get("context_length", 8192))
        num_ctx = int(given.get("num_ctx") or self.device.default_context)
        if num_ctx > trained:
            num_ctx = trained
        num_batch = int(given.get("num_batch") or min(MAX_EMBEDDING_BATCH, num_ctx))
        return num_ctx, min(num_batch, num_ctx)

    async def _load(self, model: StoredModel, num_ctx: int, num_batch: int, keep_alive: timedelta) -> Loaded:
        size = int(model.simulated.get("size_bytes", model.size)) + OVERHEAD_BYTES
        gpu = self.device.gpu if settings.fault(model.name.model)[0] != "cpu" else None
        if gpu and accounting.free_bytes(gpu) < size:
            log(
                "INFO",
                "server.go:1002",
                "model requires more gpu memory than is currently available, using CPU",
                required=_gib(size),
            )
            gpu = None
        if self.device.default_context > num_ctx and "num_ctx" not in model.parameters:
            log(
                "WARN",
                "server.go:166",
                "requested context size too large for model",
                num_ctx=self.device.default_context,
                n_ctx_train=num_ctx,
            )
        blob = f"/root/.ollama/models/blobs/{model.model_blob.replace(':', '-')}"
        command = f"/usr/lib/ollama/llama-server --model {blob} --port 40123 --ctx-size {num_ctx} --batch-size {num_batch} --embeddings"
        log("INFO", "server.go:438", "starting llama-server", cmd=command)
        log("INFO", "server.go:1340", "waiting for llama-server to become available", status="llm server loading model")
        held = accounting.Allocation(gpu, "/usr/lib/ollama/llama-server") if gpu else None
        began = time.monotonic()
        try:
            for step in (1, 2, 3, 4):
                await asyncio.sleep(settings.number("ollama_load_seconds", DEFAULT_LOAD_SECONDS) / 4)
                if held:
                    held.set(size * step // 4)
        except asyncio.CancelledError:
            if held:
                held.close()
            raise
        if settings.fault(model.name.model)[0] == "crash-loading":
            if held:
                held.close()
            log(
                "ERROR",
                "sched.go:470",
                "error loading llama server",
                error="llama-server process has terminated: exit status 2",
            )
            raise RunnerError(500, "llama-server process has terminated: exit status 2")
        log("INFO", "server.go:1378", f"llama-server started in {time.monotonic() - began:.2f} seconds")
        log("INFO", "sched.go:537", "loaded runners", count=1)
        return Loaded(model, num_ctx, num_batch, size, size if gpu else 0, held, keep_alive, _now())

    def _renew(self, loaded: Loaded, keep_alive: timedelta | None) -> None:
        """Count the keep-alive time from now."""
        if keep_alive is not None:
            loaded.keep_alive = keep_alive
        forever = loaded.keep_alive < timedelta(0)
        loaded.expires = _now() + (FOREVER if forever else loaded.keep_alive)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if not forever:
            self._timer = asyncio.get_running_loop().call_later(loaded.keep_alive.total_seconds(), self.unload)

    def unload(self) -> None:
        """Free the model's memory."""
        if self.loaded and self.loaded.held:
            self.loaded.held.close()
        self.loaded = None

    async def embed(self, loaded: Loaded, text: str, *, truncate: bool, size: int) -> tuple[list[float], int]:
        """(vector, tokens) of one text, not normalised. Raises RunnerError for texts too long and for NaN."""
        pieces = tokenize(text)
        room = loaded.limit - 2  # the begin and end marks
        if len(pieces) > room:
            if not truncate:
                raise RunnerError(400, "the input length exceeds the context length")
            pieces = pieces[:room]
        fault, value = settings.fault(loaded.model.name.model)
        delay = settings.number("embed_ms", DEFAULT_EMBED_MS) / 1000
        if fault == "slow":
            delay = float(value or 1000) / 1000
        if fault == "hang-requests":
            await asyncio.Event().wait()
        await asyncio.sleep(delay)
        if fault == "error-500":
            raise RunnerError(500, "llama runner process no longer running (simulated)")
        if fault == "nan" and value in text:
            raise RunnerError(500, "embedding contains NaN or Inf values")
        if fault == "wrong-dimension":
            size = int(value or size // 2)
        values = vector(pieces, size)
        assert all(math.isfinite(number) for number in values)
        return values, len(pieces) + 2


def parse_keep_alive(value: Any) -> timedelta | None:
    """Ollama's keep_alive: seconds, or "5m", "1h30m", negative for ever; None when absent. Raises ValueError."""
    if value is None or value == "":
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return timedelta(seconds=value)
    text = str(value)
    sign = -1 if text.startswith("-") else 1
    body = text.lstrip("-")
    if body.isdigit():
        return timedelta(seconds=sign * int(body))
    total, number = 0.0, ""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    for mark in body:
        if mark in units and number:
            total += float(number) * units[mark]
            number = ""
        elif mark.isdigit() or mark == ".":
            number += mark
        else:
            raise ValueError(f'time: invalid duration "{text}"')
    if number:
        raise ValueError(f'time: missing unit in duration "{text}"')
    return timedelta(seconds=sign * total)


def _now() -> datetime:
    return datetime.now(UTC)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"

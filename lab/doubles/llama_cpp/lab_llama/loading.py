"""Loading a model: what it takes of which card, in which order, and how it fails when a card has no room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from lab_gpu import accounting, settings
from lab_gpu.machine import Gpu

from lab_llama.arguments import ALL_LAYERS, Options
from lab_llama.log import log, said_by
from lab_llama.model import Model, ModelError, read

MIB = 1024**2
CONTEXT_BYTES = 300 * MIB
"""A CUDA context with its libraries; a guess, as for the other doubles."""
FIT_TARGET = 1024 * MIB
"""What --fit leaves free on each card (default of --fit-target); FIT_CONTEXT: the shortest context that it chooses by itself."""
FIT_CONTEXT = 4096
SMALL_BUFFER = 8 * MIB
DEFAULT_LOAD_SECONDS = 2.0
STEPS = 4
PROGRAM = "/app/llama-server"


class LoadError(Exception):
    """The model is not loaded; everything that the program says of it has been logged."""


@dataclass(frozen=True)
class Need:
    """Bytes that a model takes of all cards together."""

    weights: int
    cache: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute


@dataclass(frozen=True)
class Loaded:
    """A model that is ready. `slot_context` is the context of one slot, in tokens."""

    model: Model
    context: int
    slot_context: int
    held: tuple[accounting.Allocation, ...]


async def load(options: Options, cards: Sequence[Gpu]) -> Loaded:
    """Read the file, fit it to the cards, take their memory step by step. Raises LoadError."""
    fault, _ = settings.fault(*options.aliases)
    seconds = settings.number("llama_load_seconds", DEFAULT_LOAD_SECONDS)
    said_by("srv", "load_model", f"loading model '{options.model}'")
    try:
        model = read(options.model)
    except ModelError as error:
        if options.fit:  # reads the file first, and goes on when it cannot
            _unreadable(error)
            unfit = "encountered an error while trying to fit params to free device memory: failed to load model"
            log("E", f"common_fit_params: {unfit}")
        _unreadable(error)
        _no_model(options)
    while fault == "hang-loading":
        await asyncio.sleep(0.2)
        fault, _ = settings.fault(*options.aliases)
    context, layers = _fitted(options, model, cards)
    need = _need(options, model, context, layers)
    cards = cards if need.total else ()
    shares = _shares(cards)
    held = tuple(accounting.Allocation(card, PROGRAM) for card in cards)
    for one in held:
        one.set(CONTEXT_BYTES)
    try:
        for step in range(1, STEPS + 1):
            await asyncio.sleep(seconds / STEPS)
            if fault == "crash-loading":
                _crash()
            _take(held, cards, shares, need.weights // STEPS, need.weights, options, forced=fault == "oom-start")
            if step == STEPS:
                _take(held, cards, shares, need.cache, need.cache, options, what="kv cache")
                _take(held, cards, shares, need.compute, need.compute, options, what="compute pp buffers")
    except BaseException:
        for one in held:
            one.close()
        raise
    said_by(
        "cmn",
        "init",
        f"llama threadpool init, n_threads = {options.threads if options.threads > 0 else os.cpu_count()}",
    )
    slot = context if options.unified else context // options.parallel
    unified = str(options.unified).lower()
    said_by(
        "srv",
        "load_model",
        f"initializing, n_slots = {options.parallel}, n_ctx_slot = {slot}, kv_unified = '{unified}'",
    )
    return Loaded(model, context, slot, held)


def _fitted(options: Options, model: Model, cards: Sequence[Gpu]) -> tuple[int, int]:
    """(context, layers on the cards). What the command line leaves open is reduced until it fits; what it sets stays."""
    context = options.context or model.trained_context
    layers = min(ALL_LAYERS if options.gpu_layers is None else options.gpu_layers, model.layers + 1) if cards else 0
    room = sum(max(accounting.free_bytes(card) - CONTEXT_BYTES - FIT_TARGET, 0) for card in cards)
    if not options.fit or not layers or _need(options, model, context, layers).total <= room:
        return context, layers
    if options.context == 0:
        while context > FIT_CONTEXT and _need(options, model, context, layers).total > room:
            context = max(context // 2, FIT_CONTEXT)
        if _need(options, model, context, layers).total <= room:
            return context, layers
    if options.gpu_layers is not None:
        text = f"n_gpu_layers already set by user to {options.gpu_layers}, abort"
        log("W", f"common_fit_params: failed to fit params to free device memory: {text}")
        return options.context or model.trained_context, layers
    while layers and _need(options, model, context, layers).total > room:
        layers -= 1
    return context, layers


def _need(options: Options, model: Model, context: int, layers: int) -> Need:
    share = layers / (model.layers + 1)
    if not layers:
        return Need(0, 0, 0)
    logits = 0 if model.encoder else options.micro_batch * model.vocabulary * 4
    cache = context * model.cache_values * options.cache_bytes
    return Need(int(model.size * share), int(cache * share), logits + SMALL_BUFFER)


def _shares(cards: Sequence[Gpu]) -> list[float]:
    """The part of each card: by their free memory, as --split-mode layer does."""
    free = [max(accounting.free_bytes(card), 1) for card in cards]
    return [one / sum(free) for one in free]


def _take(
    held: Sequence[accounting.Allocation],
    cards: Sequence[Gpu],
    shares: Sequence[float],
    size: int,
    asked: int,
    options: Options,
    *,
    what: str = "",
    forced: bool = False,
) -> None:
    """Take `size` of a buffer of `asked` bytes, in parts. Raises LoadError where a card has no room, with the lines of `what`."""
    for number, (one, card, share) in enumerate(zip(held, cards, shares, strict=True)):
        if not forced and int(size * share) <= accounting.free_bytes(card):
            one.set(one.size + int(size * share))
            continue
        wanted = int(asked * share)
        mib = wanted / MIB
        log(
            "E",
            f"ggml_backend_cuda_buffer_type_alloc_buffer: allocating {mib:.2f} MiB on device {number}: cudaMalloc failed: out of memory",
        )
        place = f"failed to allocate CUDA{number} buffer of size {wanted}"
        if what == "compute pp buffers":
            log("E", f"ggml_gallocr_reserve_n_impl: {place}")
            log("E", "graph_reserve: failed to allocate compute buffers")
        else:
            log("E", f"alloc_tensor_range: {place}")
        if not what:
            _unreadable(ModelError(f"unable to allocate CUDA{number} buffer"))
            _no_model(options)
        failed = "buffer for kv cache" if what == "kv cache" else what
        log("E", f"llama_init_from_model: failed to initialize the context: failed to allocate {failed}")
        for function in ("common_init_result", "common_init_from_params"):
            said_by("cmn", function, f"failed to create context with model '{options.model}'", "E")
        said_by("srv", "load_model", f"failed to create_context with model '{options.model}'", "E")
        raise LoadError


def _unreadable(error: ModelError) -> None:
    for line in error.lines:
        log("E", line)
    log("E", f"llama_model_load: error loading model: {error}")
    log("E", "llama_model_load_from_file_impl: failed to load model")


def _no_model(options: Options) -> NoReturn:
    said_by("cmn", "common_init_from_params", f"failed to load model '{options.model}'", "E")
    said_by("srv", "load_model", f"failed to load model, '{options.model}'", "E")
    raise LoadError


def _crash() -> NoReturn:
    """A CUDA error while loading ends the process by abort(), after two lines (ggml_cuda_error)."""
    log("E", "CUDA error: an illegal memory access was encountered")
    log("E", "  current device: 0, in function ggml_backend_cuda_buffer_set_tensor at ggml-cuda.cu (simulated)")
    raise SystemExit(134)

"""What one instance of vLLM will ask of a card, and what its KV cache will hold.

Source: vLLM 0.19.1, v1/worker/gpu_worker.py (determine_available_memory) and v1/worker/utils.py (request_memory):
cache = ceil(total * utilization) - weights - activations - what other libraries took; from 0.21 on also less the CUDA graphs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from stoker.plan.memory.kv_cache import SUBTRACTS_GRAPHS, CacheSettings, Pool, pool_of
from stoker.plan.memory.layout import Layout

GIB: Final = 1 << 30

#: A guess, bytes: activations and what is not torch's, for a few requests at once. In use 0.15 GiB were seen (4 requests of 512
#: tokens) and 1.0 to 2.0 are expected on a V100. The engine's own line at VLLM_LOGGING_LEVEL=DEBUG has the real figure.
OTHER: Final = 3 * GIB // 2

#: The sampler is measured with max_num_seqs rows of the whole vocabulary. On an H100 with 1024 rows 4.89 to 7.51 GiB were taken by
#: vocabularies of 128256, 151936 and 201088 entries, all three within 2 % of 40 bytes for each row and entry
#: (github.com/llm-d/llm-d-benchmark, config_explorer/empirical-vllm-memory-results.md).
SAMPLER_BYTES: Final = 40

#: CUDA graphs of one instance where they are subtracted, bytes: a guess, between 0.2 and 1.0 GiB in the logs.
GRAPHS: Final = GIB // 2

#: Two starts of one command left 9.10 and 10.33 GiB.
TOLERANCE: Final = round(1.23 * GIB)


@dataclass(frozen=True)
class InstanceMemory:
    """What is known of one instance before it starts."""

    name: str
    layout: Layout
    #: Of the whole model, as it lies on the cards: the sum of its safetensors files, halved if they are float32 and served in 16 bits.
    weights_bytes: int
    #: --max-model-len, or the layout's ``positions`` where none is given.
    max_model_len: int
    settings: CacheSettings
    #: --gpu-memory-utilization; vLLM's default is 0.9, in newer versions 0.92.
    utilization: float = 0.9
    max_num_seqs: int = 256
    #: Measured activations and rest, in place of the guess.
    other_bytes: int | None = None
    enforce_eager: bool = False
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    #: max-model-len auto: vLLM shortens the context to what the card holds.
    shortens: bool = False
    #: Of each card's weights, as many at most lie in the machine's own memory (--cpu-offload-gb).
    offloaded_bytes: int = 0

    @property
    def cards(self) -> int:
        """Cards that the model is spread over."""
        return self.settings.tensor_parallel * self.settings.pipeline_parallel


@dataclass(frozen=True)
class Prediction:
    """One instance on each of its cards, in bytes."""

    instance: InstanceMemory
    pool: Pool
    total: int
    #: What the start check wants free: total * utilization.
    requested: int
    weights: int
    other: int
    #: Subtracted for CUDA graphs; 0 in versions that leave them outside the budget.
    graphs: int
    #: Left for the KV cache. Below 0: not even the rest fits.
    available: int
    #: How far off ``available`` may be on one start; 0 where the size is set by hand.
    tolerance: int
    blocks: int
    #: As the engine's log will say; 0 for a model without a cache.
    tokens: int
    #: Requests of full length at once; None for a model without a cache.
    concurrency: float | None
    #: Bytes of one request of full length.
    needed: int
    #: The largest --max-model-len that fits; for a model without a cache the one that was given.
    longest: int

    @property
    def has_cache(self) -> bool:
        return bool(self.pool.groups)

    @property
    def most_available(self) -> int:
        """What is left at the very best: nothing but the weights. A start that this does not carry fails for certain."""
        return self.available + (self.other + self.graphs if self.tolerance else 0)

    @property
    def least_available(self) -> int:
        """What is left in a bad case. A start that this carries succeeds."""
        return self.available - self.tolerance

    @property
    def claim(self) -> int:
        """What it takes of the card's memory, without its CUDA context and graphs."""
        by_hand = self.instance.kv_cache_memory_bytes is not None or self.instance.num_gpu_blocks_override is not None
        if by_hand:
            return self.weights + self.other + self.graphs + self.blocks * self.pool.block_bytes
        return self.requested if self.has_cache else self.weights + self.other


def predict(instance: InstanceMemory, card_total_bytes: int) -> Prediction:
    """The engine's own arithmetic with what is known."""
    pool = pool_of(instance.layout, instance.settings)
    requested = math.ceil(card_total_bytes * instance.utilization)
    weights = max(-(-instance.weights_bytes // instance.cards) - instance.offloaded_bytes, 0)
    other = other_of(instance)
    graphs = GRAPHS if instance.settings.version >= SUBTRACTS_GRAPHS and not instance.enforce_eager else 0
    by_hand = instance.kv_cache_memory_bytes
    available = requested - weights - other - graphs if by_hand is None else by_hand
    blocks = pool.blocks(available)
    if instance.num_gpu_blocks_override is not None:
        blocks = instance.num_gpu_blocks_override
    tolerance = TOLERANCE if by_hand is None else 0
    cached = bool(pool.groups)
    if instance.shortens and cached:  # to what it will have for certain; one token where that is nothing
        fits = pool.longest(available - tolerance, instance.max_model_len)
        instance = replace(instance, max_model_len=max(fits, 1))
    length = instance.max_model_len
    return Prediction(
        instance,
        pool,
        card_total_bytes,
        requested,
        weights,
        other,
        graphs,
        available,
        tolerance,
        blocks,
        pool.tokens(blocks, length) if cached else 0,
        pool.concurrency(blocks, length) if cached else None,
        pool.bytes_of_request(length) if cached else 0,
        pool.longest(available, max(length, instance.layout.positions or 0)) if cached else length,
    )


def other_of(instance: InstanceMemory) -> int:
    """Activations and the rest: as measured, or the guess, which grows with requests at once and vocabulary."""
    if instance.other_bytes is not None:
        return instance.other_bytes
    if instance.layout.kind == "none":  # nothing is sampled
        return OTHER
    return max(OTHER, SAMPLER_BYTES * instance.max_num_seqs * (instance.layout.vocabulary or 0))

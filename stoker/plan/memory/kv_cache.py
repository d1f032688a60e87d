"""The pool of blocks that vLLM makes of the memory left for the KV cache, and what a request takes of it.

Source: vLLM 0.19.1, v1/core/kv_cache_utils.py and v1/kv_cache_interface.py, compared with 0.32.0; what changed between was checked
against public start-up logs (tests/data/vllm_startup_logs.toml).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from stoker.plan.memory.layout import Layout

#: Tokens in a block where no --block-size is given, on NVIDIA cards.
DEFAULT_BLOCK_SIZE = 16

#: Bytes of an element by --dtype. "auto" is a type of 16 bits: vLLM turns a model of 32 into one of 16 then.
ELEMENT_BYTES = {"auto": 2, "half": 2, "float16": 2, "bfloat16": 2, "float": 4, "float32": 4}

#: Bytes of an element by --kv-cache-dtype; "auto" is that of the model. fp8_ds_mla is a layout of its own.
CACHE_ELEMENT_BYTES = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
}

#: Bytes per token and layer of fp8_ds_mla: 512 of fp8, 4 scales of 4, 64 positional elements of 2.
FP8_DS_MLA_BYTES = 656

Version = tuple[int, int]

#: From here the tokens in the log are concurrency * context, before they were blocks // groups * block size.
TOKENS_BY_CONCURRENCY: Version = (0, 21)

#: From here CUDA graphs are measured and subtracted before the cache is sized.
SUBTRACTS_GRAPHS: Version = (0, 21)


def version_of(text: str) -> Version:
    """Major and minor number of an engine's version: (0, 19) of "v0.19.1"."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    if not found:
        raise ValueError(f"{text!r} is no version of vLLM; write it like 0.19.1")
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class CacheSettings:
    """The arguments that the size of the pool follows from, with vLLM's defaults."""

    version: Version
    max_num_batched_tokens: int = 2048
    block_size: int = DEFAULT_BLOCK_SIZE
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    decode_context_parallel: int = 1
    #: Layers of an EAGLE or MTP draft, each with a full cache of the model's own shape.
    draft_layers: int = 0
    #: False with --disable-hybrid-kv-cache-manager: layers with a window keep everything.
    hybrid: bool = True
    #: Batches that run at once: what a sliding layer keeps beyond its window in versions that count it (2 with async scheduling).
    batches_in_flight: int = 1


@dataclass(frozen=True)
class Pool:
    """Blocks on the card that holds the most layers."""

    #: Bytes of one block across the layers of a group, padding included.
    block_bytes: int
    block_size: int
    #: The window of each group of layers; every group takes blocks of its own from the pool.
    groups: tuple[int | None, ...]
    settings: CacheSettings

    @property
    def bytes_per_token(self) -> int:
        """What a token takes while it is within the windows of all layers."""
        return self.block_bytes * len(self.groups) // self.block_size

    def blocks(self, available: int) -> int:
        """Blocks that fit into so many bytes."""
        return max(available, 0) // self.block_bytes if self.block_bytes else 0

    def blocks_of_request(self, length: int) -> int:
        """Blocks that one request of so many tokens can come to hold."""
        return sum(self._blocks_of(window, length) for window in self.groups)

    def _blocks_of(self, window: int | None, length: int) -> int:
        if window is None:
            return _ceil(_ceil(length, self.settings.decode_context_parallel), self.block_size)
        chunk = self.settings.max_num_batched_tokens * self.settings.batches_in_flight
        # One more, since a window need not begin where a block begins.
        return _ceil(min(window - 1 + chunk, length), self.block_size) + 1

    def bytes_of_request(self, length: int) -> int:
        """Bytes without which vLLM refuses to start with this --max-model-len."""
        return self.blocks_of_request(length) * self.block_bytes

    def concurrency(self, blocks: int, length: int) -> float:
        """Requests of so many tokens that fit at once."""
        return blocks / self.blocks_of_request(length)

    def tokens(self, blocks: int, length: int) -> int:
        """The number that the engine's log gives as its size."""
        if self.settings.version >= TOKENS_BY_CONCURRENCY:
            return int(self.concurrency(blocks, length) * length)
        return blocks // len(self.groups) * self.block_size * self.settings.decode_context_parallel

    def longest(self, available: int, limit: int) -> int:
        """The largest --max-model-len up to ``limit`` that fits; 0 if nothing does."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.bytes_of_request(middle) <= available:
                low = middle
            else:
                high = middle - 1
        return low


@functools.lru_cache(maxsize=1024)
def pool_of(layout: Layout, settings: CacheSettings) -> Pool:
    """How vLLM divides the layers into groups, and what a block takes. For a layout without a cache: a pool without groups."""
    page = bytes_per_token_and_layer(layout, settings) * settings.block_size
    windows = [*layout.windows, *(None,) * settings.draft_layers] if layout.windows else []
    if not settings.hybrid and None in windows:
        windows = [None] * len(windows)
    groups = list(_groups(windows))
    # A rank holds some layers of each group, and its share of the pool is as wide as its widest group.
    width = max(
        (sum(layer in ranks for layer in layers) for ranks in _ranks(windows, settings) for _, layers in groups),
        default=0,
    )
    return Pool(page * width, settings.block_size, tuple(window for window, _ in groups), settings)


def bytes_per_token_and_layer(layout: Layout, settings: CacheSettings) -> int:
    """Bytes on one card. Heads are divided among cards, at least one on each; a latent is on every card whole."""
    if layout.kind == "none":
        return 0
    if layout.kind == "latent":
        if settings.kv_cache_dtype == "fp8_ds_mla":
            return FP8_DS_MLA_BYTES + layout.indexer_bytes
        return layout.head_size * _element(settings) + layout.indexer_bytes
    heads = max(1, layout.kv_heads // settings.tensor_parallel)
    return 2 * heads * layout.head_size * _element(settings)


def _element(settings: CacheSettings) -> int:
    known, name = (
        (ELEMENT_BYTES, settings.dtype)
        if settings.kv_cache_dtype == "auto"
        else (CACHE_ELEMENT_BYTES, settings.kv_cache_dtype)
    )
    if name not in known:
        raise ValueError(f"the size of {name!r} in the KV cache is not known; known are {', '.join(known)}")
    return known[name]


def _groups(windows: list[int | None]) -> Iterator[tuple[int | None, list[int]]]:
    """Layers of one kind, in groups of equal size: that of the rarest kind, or of the commonest if it is under 1.5 times that."""
    kinds: dict[int | None, list[int]] = {}
    for layer, window in enumerate(windows):
        kinds.setdefault(window, []).append(layer)
    if not kinds:
        return
    sizes = [len(layers) for layers in kinds.values()]
    size = max(sizes) if max(sizes) < 1.5 * min(sizes) else min(sizes)
    for window, layers in kinds.items():
        number = _ceil(len(layers), size)
        for group in range(number):
            yield window, layers[group::number]


def _ranks(windows: list[int | None], settings: CacheSettings) -> Iterator[range]:
    """The layers of each pipeline stage; what does not divide goes to the stages before the last (vLLM 0.19.1, distributed/utils.py).

    A draft's layers are with the last stage.
    """
    stages = settings.pipeline_parallel
    layers = len(windows) - (settings.draft_layers if windows else 0)
    counts = [layers // stages] * stages
    for extra in range(layers % stages):
        counts[-2 - extra] += 1
    counts[-1] += len(windows) - layers
    start = 0
    for count in counts:
        yield range(start, start + count)
        start += count


def _ceil(value: int, by: int) -> int:
    return -(-value // by)

"""KV cache arithmetic and memory refusals of vLLM v0.19.1 (v1/worker/gpu_worker.py, v1/core/kv_cache_utils.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass

GIB = 1024**3
_MORE = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."


def gib(size: float) -> str:
    """Bytes as vLLM prints them, in GiB with up to two decimals."""
    return f"{round(size / GIB, 2)}"


def requested(total: int, utilization: float) -> int:
    """Bytes that one instance may use of a card."""
    return math.ceil(total * utilization)


def check_free(free: int, total: int, utilization: float) -> None:
    """Raise ValueError when the card has less free memory than this instance wants."""
    wanted = requested(total, utilization)
    if free < wanted:
        raise ValueError(
            f"Free memory on device cuda:0 ({gib(free)}/{gib(total)} GiB) on startup is less than desired GPU memory utilization "
            f"({utilization}, {gib(wanted)} GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
        )


def check_profile(initial_free: int, current_free: int) -> None:
    """Raise AssertionError when the card has more free memory after profiling than before: a neighbour let go."""
    if initial_free < current_free:
        raise AssertionError(
            f"Error in memory profiling. Initial free memory {gib(initial_free)} GiB, current free memory {gib(current_free)} GiB. "
            "This happens when other processes sharing the same container release GPU memory while vLLM is profiling during "
            "initialization. To fix this, ensure consistent GPU memory allocation or isolate vLLM in its own container."
        )


@dataclass(frozen=True)
class KvCache:
    """The KV cache of one instance."""

    blocks: int
    block_size: int
    max_model_len: int

    @property
    def tokens(self) -> int:
        return self.blocks * self.block_size

    @property
    def concurrency(self) -> float:
        """Requests of full length that fit at once."""
        return self.blocks / math.ceil(self.max_model_len / self.block_size)


def plan_kv_cache(available: int, bytes_per_token: int, block_size: int, max_model_len: int) -> KvCache:
    """Blocks that fit into `available` bytes; raises ValueError as vLLM refuses."""
    if available <= 0:
        raise ValueError(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine. "
            + _MORE
        )
    block_bytes = bytes_per_token * block_size
    needed = math.ceil(max_model_len / block_size) * block_bytes
    blocks = available // block_bytes
    if needed > available:
        longest = blocks * block_size
        estimate = (
            f"Based on the available memory, the estimated maximum model length is {longest}. " if longest else ""
        )
        raise ValueError(
            f"To serve at least one request with the models's max seq len ({max_model_len}), ({gib(needed)} GiB KV cache is needed, "
            f"which is larger than the available KV cache memory ({gib(available)} GiB). {estimate}"
            "Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine. "
            + _MORE
        )
    return KvCache(blocks, block_size, max_model_len)


def capture_sizes(max_num_seqs: int) -> list[int]:
    """Batch sizes for which CUDA graphs are captured: up to min(2 * seqs, 512)."""
    largest = min(2 * max_num_seqs, 512)
    return [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= largest]

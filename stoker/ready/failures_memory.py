"""vLLM and the memory of a card: what did not fit, and what would.

Texts were looked up in vLLM's released wheels 0.8.5, 0.9.2, 0.11.2, 0.13.0, 0.16.0, 0.19.1, 0.20.2 and 0.33.0.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

from stoker.plan.memory.predict import GIB, TOLERANCE, Prediction, predict
from stoker.plan.memory.verdict import MOST_UTILIZATION, longest_start, starts
from stoker.ready.failure import Clues, Failure, Groups

_AVAILABLE = re.compile(r"Available KV cache memory: (-?[\d.]+) GiB")
_LOADED = re.compile(r"Model loading took ([\d.]+) Gi?B")
_SAMPLER = re.compile(r"out of memory occurred when warming up \w+.*? with (\d+) dummy requests")

_WORKER = "vLLM's wheels: v1/worker/utils.py, gpu_worker.py"


def _fitting_utilization(got: Groups, clues: Clues) -> Groups:
    # two decimals, rounded down: what is asked for has to stay below what is free
    share = math.floor(float(got["free"]) / float(got["total"]) * 100) / 100
    one = clues.known.memory
    small = (
        one and (tried := predict(replace(one.instance, utilization=share), one.total)).most_available < tried.needed
    )
    return {"fits": f"{share:.2f} fits now" + (", which is too little for this model" if small else "")}


def _measured(clues: Clues) -> Prediction | None:
    """The prediction, corrected by what this start left for the cache."""
    one, found = clues.known.memory, clues.find(_AVAILABLE)
    if one is None or found is None:
        return one
    other = one.requested - one.weights - one.graphs - round(float(found[1]) * GIB)
    return predict(replace(one.instance, other_bytes=max(other, 0)), one.total)


def _enough(one: Prediction) -> float | None:
    """The smallest gpu_memory_utilization with which one request of full length fits for certain; None: there is none."""
    if one.instance.kv_cache_memory_bytes is not None:  # the share has no say then
        return None
    for percent in range(math.floor(one.instance.utilization * 100) + 1, round(MOST_UTILIZATION * 100) + 1):
        if starts(predict(replace(one.instance, utilization=percent / 100), one.total)):
            return percent / 100
    return None


def _ways_out(one: Prediction) -> str:
    """Settings of vLLM that let it start, "" where none does."""
    share, length = _enough(one), longest_start(one)
    ways = [f"set max_model_len to at most {length}"] if length else []
    ways += [f"set gpu_memory_utilization to {share:.2f} if the card has no one else on it"] if share else []
    return ", or ".join(ways)


def _room_for_cache(_: Groups, clues: Clues) -> Groups:
    found, planned, one = clues.find(_AVAILABLE), clues.known.memory, _measured(clues)
    if found and planned and planned.available - float(found[1]) * GIB > 2 * TOLERANCE:
        others = planned.available / GIB - float(found[1])
        advice = f"about {others:.1f} GiB more were taken than this model needs by the plan: by another program on the card while it measured; keep that off and start it again"
        return {"short": "", "advice": advice}
    short = f" ({-float(found[1]):.2f} GiB too little)" if found and float(found[1]) < 0 else ""
    ways = _ways_out(one) if one else ""
    if one and not ways:
        ways = f"this model does not fit on a card of {one.total / GIB:.1f} GiB beside what it needs to compute: take a smaller one or more cards"
    general = (
        "raise gpu_memory_utilization if the card has room, or lower max_num_batched_tokens, or take a smaller model"
    )
    return {"short": short, "advice": ways or general}


def _context(got: Groups, clues: Clues) -> Groups:
    """The engine's own figure where it gives one; else by proportion, which is exact where every token costs the same."""
    fits = got.get("fits") or str(int(int(got["length"]) * float(got["have"]) / float(got["need"])) // 16 * 16)
    about = "" if got.get("fits") else "about "
    one = clues.known.memory
    share = _enough(_measured(clues) or one) if one else None
    raised = f"raise gpu_memory_utilization to {share:.2f}" if share else "raise gpu_memory_utilization"
    return {"advice": f"set max_model_len to at most {about}{fits}, or {raised}"}


_OOM_DETAIL = re.compile(
    r"total capacity of (?P<total>[\d.]+) GiB of which (?P<free>[\d.]+ [MG]iB) is free.*?"
    r"(?:this process has (?P<mine>[\d.]+ [MG]iB) memory in use|$)"
)


def _gib(size: str) -> float:
    number, _, unit = size.partition(" ")
    return float(number) / (1024 if unit == "MiB" else 1)


def _out_of_memory(got: Groups, clues: Clues) -> Groups:
    """Whose memory it is, and what to lower: weights that do not fit are not helped by another share."""
    sampler = clues.find(_SAMPLER)
    found = clues.find(_OOM_DETAIL)
    others = 0.0
    if found and found["mine"]:
        others = float(found["total"]) - _gib(found["free"]) - _gib(found["mine"])
    held = f"; other processes hold {others:.1f} GiB of it" if others > 0.5 else ""
    if others > 0.5:
        advice = "see with nvidia-smi on the host who holds it, and stop that or lower gpu_memory_utilization"
    elif sampler:
        advice = f"set max_num_seqs to at most {max(int(sampler[1]) // 2, 1)}, or lower gpu_memory_utilization"
    elif clues.lines and not clues.find(_LOADED) and not clues.find(_AVAILABLE):
        advice = "the weights do not fit beside what the card already holds: take a smaller or more quantised model, or tensor-parallel-size 2"
        advice += "; see with nvidia-smi whether another process uses the card"
    else:
        advice = f"lower gpu_memory_utilization{_lower(got, found, clues)} or max_num_seqs; see with nvidia-smi whether another process uses the card"
    return {"held": held, "advice": advice}


def _lower(got: Groups, found: re.Match[str] | None, clues: Clues) -> str:
    """To what, where card and setting are known: by what was wanted and not there."""
    one = clues.known.memory
    if one is None or found is None or not got.get("size"):
        return ""
    share = one.instance.utilization - _gib(got["size"]) / float(found["total"])
    return f" to {math.floor(share * 100) / 100:.2f}" if share > 0 else ""


MEMORY_FAILURES: tuple[Failure, ...] = (
    Failure(
        id="gpu-memory-not-free",
        pattern=re.compile(
            r"Free memory on device (?:\S+ )?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired "
            r"GPU memory utilization \((?P<share>[\d.]+), (?P<want>[\d.]+) GiB\)"
        ),
        cause="the GPU has {free} GiB free of {total} and the instance asks for {want} GiB (gpu_memory_utilization {share})",
        remedy="see with nvidia-smi on the host who holds the rest; if it belongs there, gpu_memory_utilization of at most {fits}",
        source=f"{_WORKER} (0.9.1 to 0.33); vllm#20305, #25837",
        since="0.9",
        heals=True,
        numbers=_fitting_utilization,
    ),
    Failure(
        id="memory-profiling-race",
        pattern=re.compile(r"Error in memory profiling\. Initial (?:free|used) memory"),
        cause="another process on the GPU gave memory back while this instance was measuring",
        remedy="start it again; instances of one GPU must load one after the other, and nothing else may run on the card",
        source=f"{_WORKER} (0.8.5 to 0.33; up to 0.10 'Initial used memory' too); vllm#56830, #55169",
        heals=True,
    ),
    Failure(
        id="no-memory-for-cache",
        pattern=re.compile(r"No available memory for the cache blocks"),
        cause="after the weights and the working memory nothing is left for the KV cache{short}",
        remedy="{advice}",
        source="vLLM's wheels 0.8.5 to 0.33: v1/core/kv_cache_utils.py; vllm#27508, #14574; two that load together: vllm#55827",
        numbers=_room_for_cache,
    ),
    Failure(
        id="context-too-long",
        pattern=re.compile(
            r"To serve at least one request with the model(?:s's|'s) max seq len \((?P<length>\d+)\),? \(?(?P<need>[\d.]+) GiB KV cache "
            r"is needed.*?available KV cache memory \((?P<have>[\d.]+) GiB\)(?:.*?estimated maximum model length is (?P<fits>\d+))?"
        ),
        cause="one request of {length} tokens needs {need} GiB of KV cache and {have} GiB are there",
        remedy="{advice}",
        source="vLLM's wheels: v1/core/kv_cache_utils.py ('models's' to 0.20, 'model's' in 0.32); vllm#34076, kaito-project/kaito#2132",
        numbers=_context,
    ),
    Failure(
        id="context-too-long",
        pattern=re.compile(
            r"max seq len \((?P<length>\d+)\) is larger than the maximum number of tokens that can be stored in KV cache \((?P<fits>\d+)\)"
        ),
        cause="max_model_len {length} does not fit: the KV cache holds {fits} tokens",
        remedy="set max_model_len to at most {fits}, or raise gpu_memory_utilization",
        source="vLLM's wheels 0.8.5 and 0.9.2 (V0 engine), gone in 0.11; vllm#2418, #10517",
        before="0.11",
    ),
    Failure(
        id="gpu-out-of-memory",
        pattern=re.compile(
            r"CUDA out of memory\. Tried to allocate (?P<size>[\d.]+ \w+)|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"
        ),
        cause="the GPU ran out of memory{wanted}{held}",
        remedy="{advice}",
        source="PyTorch 2.1 to 2.14: c10/cuda/CUDACachingAllocator.cpp; vllm#27508, #16343, #12529",
        numbers=lambda got, clues: {
            "wanted": f" (a further {got['size']} was wanted)" if got["size"] else "",
            **_out_of_memory(got, clues),
        },
    ),
    Failure(
        id="gpu-out-of-memory",
        pattern=re.compile(r"CUBLAS_STATUS_ALLOC_FAILED|NCCL error.*out of memory"),
        cause="the GPU ran out of memory",
        remedy="lower gpu_memory_utilization or max_num_seqs; see with nvidia-smi whether another process uses the card",
        source="PyTorch: cublasCreate finds no room for its handle",
    ),
    Failure(
        id="shared-memory",
        pattern=re.compile(
            r"Insufficient space in /dev/shm for shared-memory allocation: (?P<need>\d+ \w+) required, (?P<free>\d+ \w+) free"
        ),
        cause="the engine's processes need {need} of shared memory and the container has {free} free",
        remedy="set shm_size of at least {need} for the service; Stoker does for tensor parallel and for the profile vllm-cpu: is `profiles` set in group_data?",
        source="vLLM 0.32.0 for CPU, seen in the lab; its workers are processes of their own, as with tensor parallel",
    ),
    Failure(
        id="shared-memory",
        pattern=re.compile(
            r"insufficient shared memory \(shm\)|Error while creating shared memory segment|unable to (?:mmap|write to file).*?/torch_"
        ),
        cause="the container's shared memory (/dev/shm) is full",
        remedy="set shm_size to 8g for the service, or ipc: host; Docker gives 64 MiB",
        source="PyTorch DataLoader and NCCL, in reports on vLLM with tensor parallel",
    ),
)

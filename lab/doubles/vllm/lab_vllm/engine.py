"""The EngineCore process of the double: loads in vLLM's phases, holds the GPU memory, lives as long as the API server wants.

Started by the API server with two pipes: it writes one JSON line when ready, then reads commands, one JSON line each.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from lab_gpu import accounting, settings
from lab_gpu.machine import Gpu

from lab_vllm import memory
from lab_vllm.engine_config import EngineConfig, describe, from_json
from lab_vllm.log import Log, progress_bar
from lab_vllm.model import ModelError, check_shards

GIB = 1024**3
MIB = 1024**2

# Memory of a process outside vLLM's budget on a V100: CUDA context, and captured graphs (facts of v0.19.1: about 1 GiB together).
CONTEXT_BYTES = 400 * MIB
GRAPH_BYTES = 300 * MIB

# When each phase ends, as a share of the load time: about what a warm start on a V100 takes.
INIT, BACKEND, WEIGHTS, COMPILE, PROFILE, GRAPHS = 0.10, 0.16, 0.55, 0.74, 0.78, 0.97


class EngineFailure(Exception):
    """The engine could not start; carries the exception line of the traceback."""


class Loader:
    """Runs the load phases of one engine on one card."""

    def __init__(self, config: EngineConfig, gpu: Gpu, started: float, log: Log) -> None:
        self.config, self.gpu, self.started, self.log = config, gpu, started, log
        self.seconds = settings.number("load_seconds", 6.0)
        self.fault, _ = settings.fault(*config.served_names)
        self.total = gpu["usable_mib"] * MIB
        self.held = accounting.Allocation(gpu, "VLLM::EngineCore")

    def load(self) -> memory.KvCache | None:
        """All phases; returns the KV cache, or None for a model without one. Raises EngineFailure."""
        config, log = self.config, self.log
        log.info("core.py:106", f"Initializing a V1 LLM engine (v0.19.1) with config: {describe(config)}")
        self._until(INIT)
        self._check_card()
        log.info(
            "parallel_state.py:1401",
            f"world_size=1 rank=0 local_rank=0 distributed_init_method=tcp://{_own_address()}:{40000 + os.getpid() % 20000} backend=nccl",
        )
        log.info(
            "parallel_state.py:1717",
            "rank 0 in world size 1 is assigned as DP rank 0, PP rank 0, PCP rank 0, TP rank 0, EP rank N/A, EPLB rank N/A",
        )
        self._grow(CONTEXT_BYTES)
        free_before = accounting.free_bytes(self.gpu)
        try:
            memory.check_free(free_before, self.total, config.utilization)
        except ValueError as error:
            raise EngineFailure(f"ValueError: {error}") from error
        self._until(BACKEND)
        log.info("gpu_model_runner.py:4736", f"Starting to load model {config.model.name}...")
        log.info(
            "cuda.py:335",
            "Using TRITON_ATTN attention backend out of potential backends: ['TRITON_ATTN', 'FLEX_ATTENTION'].",
        )
        self._weights()
        self._compile()
        cache = self._kv_cache(free_before)
        self._graphs()
        waited = time.monotonic() - self.started
        log.info(
            "core.py:284",
            f"init engine (profile, create kv cache, warmup model) took {waited * (1 - WEIGHTS):.2f} seconds",
        )
        return cache

    def _check_card(self) -> None:
        name, capability = self.gpu["name"], self.gpu["compute_cap"]
        if self.config.dtype == "bfloat16" and float(capability) < 8.0:
            raise EngineFailure(
                "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
                f"Your {name} GPU has compute capability {capability}. You can use float16 instead by explicitly setting the "
                "`dtype` flag in CLI, for example: --dtype=half."
            )
        if float(capability) < 7.0:
            self.log.raw_error(
                f"/usr/local/lib/python3.12/dist-packages/torch/cuda/__init__.py:435: UserWarning: \n    Found GPU0 {name} which is of "
                f"compute capability (CC) {capability}.\n    The following list shows the CCs this version of PyTorch was built for and "
                "the hardware CCs it supports:\n    - 7.0 which supports hardware CC >=7.0,<8.0 except {7.2}\n"
                "    - 7.5 which supports hardware CC >=7.5,<8.0"
            )
            raise EngineFailure(
                f"RuntimeError: Found {name} which is too old to be supported by the triton GPU compiler, which is used as the backend. "
                f"Triton only supports devices of CUDA Capability >= 7.0, but your device is of CUDA capability {capability}"
            )

    def _weights(self) -> None:
        config, log = self.config, self.log
        try:
            check_shards(config.model)
        except ModelError as error:
            kind = {"Cannot": "RuntimeError", "No": "FileNotFoundError"}.get(
                str(error).split(" ", 1)[0], "safetensors_rust.SafetensorError"
            )
            raise EngineFailure(f"{kind}: {error}") from error
        shards = config.model.shards
        kind = "safetensors" if shards[0].endswith(".safetensors") else "pt"
        title = f"Loading {kind} checkpoint shards"
        began = time.monotonic()
        share = (WEIGHTS - BACKEND) / len(shards)
        before = self.held.size
        log.progress(progress_bar(title, 0, len(shards), 0.0))
        for done in range(1, len(shards) + 1):
            if self.fault == "hang-loading":
                _hang()
            self._until(BACKEND + share * done)
            if self.fault == "oom-start":
                raise EngineFailure(out_of_memory(self.gpu, 224 * MIB, forced=True))
            self._grow(before + config.model.weights * done // len(shards) - self.held.size)
            if self.fault == "crash-loading":
                raise EngineFailure("RuntimeError: CUDA error: an illegal memory access was encountered")
            if self.fault == "no-kernel":
                raise EngineFailure(
                    "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device"
                )
            if self.fault == "stuck-after-error":
                report_failure(log, "RuntimeError: CUDA error: an illegal memory access was encountered")
                _hang()
            log.progress(progress_bar(title, done, len(shards), time.monotonic() - began), end=done == len(shards))
        took = time.monotonic() - began
        log.info("default_loader.py:385", f"Loading weights took {took:.2f} seconds")
        log.info(
            "gpu_model_runner.py:4821",
            f"Model loading took {memory.gib(config.model.weights)} GiB memory and {time.monotonic() - self.started:.6f} seconds",
        )

    def _compile(self) -> None:
        if self.config.eager:
            self._until(COMPILE)
            return
        log = self.log
        span = (COMPILE - WEIGHTS) * self.seconds
        described = f"{self.config.model.name} {self.config.dtype} {self.config.max_model_len} {self.config.max_num_batched_tokens}"
        root = Path(os.environ.get("VLLM_CACHE_ROOT") or Path.home() / ".cache" / "vllm")
        cache = root / "torch_compile_cache" / f"{zlib.crc32(described.encode()):010x}" / "rank_0_0" / "backbone"
        warm = cache.is_dir()
        log.info("backends.py:1052", f"Using cache directory: {cache} for vLLM's torch.compile")
        self._until(WEIGHTS + (COMPILE - WEIGHTS) * 0.4)
        log.info("backends.py:1112", f"Dynamo bytecode transform time: {span * 0.4:.2f} s")
        self._until(COMPILE)
        shapes = f"compile range (1, {self.config.max_num_batched_tokens})"
        if warm:
            log.info(
                "backends.py:286",
                f"Directly load the compiled graph(s) for {shapes} from the cache, took {span * 0.6:.3f} s",
            )
        else:
            log.info("backends.py:391", f"Compiling a graph for {shapes} takes {span * 0.6:.2f} s")
            with contextlib.suppress(OSError):  # a read-only home only costs the next start its warm cache
                cache.mkdir(parents=True)
        log.info("monitor.py:53", f"torch.compile took {span:.2f} s in total")

    def _kv_cache(self, free_before: int) -> memory.KvCache | None:
        config, log, gpu = self.config, self.log, self.gpu
        weights, other = config.model.weights, config.model.other
        self._grow(other)
        self._until(PROFILE)
        log.info("monitor.py:76", f"Initial profiling/warmup run took {self.seconds * (PROFILE - COMPILE):.2f} s")
        free_now = accounting.free_bytes(gpu)
        try:
            if config.kv_cache_memory_bytes:
                available = config.kv_cache_memory_bytes
                log.info(
                    "gpu_worker.py:361",
                    f"Initial free memory {memory.gib(free_before)} GiB, reserved {memory.gib(available)} GiB memory for KV Cache as "
                    "specified by kv_cache_memory_bytes config and skipped memory profiling. This does not respect the "
                    "gpu_memory_utilization config. Only use kv_cache_memory_bytes config when you want manual control of KV cache "
                    "memory size. If OOM'ed, check the difference of initial free memory between the current run and the previous run "
                    "where kv_cache_memory_bytes is suggested and update it correspondingly.",
                )
            else:
                memory.check_profile(free_before, free_now)
                # What a neighbour took on the card meanwhile is indistinguishable from our own non-torch memory.
                neighbour = (free_before - free_now) - weights - other
                available = memory.requested(self.total, config.utilization) - weights - other - neighbour
                log.info("gpu_worker.py:436", f"Available KV cache memory: {memory.gib(available)} GiB")
            if config.model.pooling:
                return None
            per_token = config.model.kv_bytes_per_token(config.kv_dtype_bytes)
            cache = memory.plan_kv_cache(available, per_token, config.block_size, config.max_model_len)
        except (ValueError, AssertionError) as error:
            raise EngineFailure(f"{type(error).__name__}: {error}") from error
        if config.blocks_override:
            log.info(
                "kv_cache_utils.py:812",
                f"Overriding num_gpu_blocks={cache.blocks} with num_gpu_blocks_override={config.blocks_override}",
            )
            cache = memory.KvCache(config.blocks_override, config.block_size, config.max_model_len)
        self._grow(cache.tokens * per_token)
        log.info("kv_cache_utils.py:1319", f"GPU KV cache size: {cache.tokens:,} tokens")
        log.info(
            "kv_cache_utils.py:1324",
            f"Maximum concurrency for {config.max_model_len:,} tokens per request: {cache.concurrency:.2f}x",
        )
        return cache

    def _graphs(self) -> None:
        if self.config.eager or self.config.model.pooling:
            self._until(GRAPHS)
            return
        sizes = memory.capture_sizes(self.config.max_num_seqs)
        began = time.monotonic()
        modes = ("mixed prefill-decode, PIECEWISE", "decode, FULL")
        for half, mode in enumerate(modes):
            start = PROFILE + (GRAPHS - PROFILE) * half / len(modes)
            for step in range(0, 5):
                share = start + (GRAPHS - PROFILE) / len(modes) * step / 4
                self._until(share)
                done = len(sizes) * step // 4
                bar = (
                    f"Capturing CUDA graphs ({mode}): {25 * step:3d}%|{'█' * (10 * step // 4):<10}| {done}/{len(sizes)}"
                )
                self.log.progress(bar, end=step == 4)
        self._grow(GRAPH_BYTES)
        self._advise()
        self.log.info(
            "gpu_model_runner.py:6046",
            f"Graph capturing finished in {time.monotonic() - began:.0f} secs, took {GRAPH_BYTES / GIB:.2f} GiB",
        )

    def _advise(self) -> None:
        """The DEBUG line from which a person takes --kv-cache-memory-bytes (gpu_worker.py, compile_or_warm_up_model)."""
        if os.environ.get("VLLM_LOGGING_LEVEL") != "DEBUG" or self.config.kv_cache_memory_bytes:
            return
        model, gib = self.config.model, memory.gib
        wanted = memory.requested(self.total, self.config.utilization)
        spare = 150 * MIB  # redundancy_buffer_memory of that version
        taken = model.weights + model.other + GRAPH_BYTES
        to_requested, to_limit = wanted - taken - spare, self.total - CONTEXT_BYTES - taken - spare
        self.log.debug(
            "gpu_worker.py:661",
            f"Free memory on device ({gib(self.total - CONTEXT_BYTES)}/{gib(self.total)} GiB) on startup. Desired GPU memory "
            f"utilization is ({self.config.utilization}, {gib(wanted)} GiB). Actual usage is {gib(model.weights)} GiB for weight, "
            f"{gib(model.other)} GiB for peak activation, 0.0 GiB for non-torch memory, and {gib(GRAPH_BYTES)} GiB for CUDAGraph "
            f"memory. Replace gpu_memory_utilization config with `--kv-cache-memory={to_requested}` ({gib(to_requested)} GiB) to fit "
            f"into requested memory, or `--kv-cache-memory={to_limit}` ({gib(to_limit)} GiB) to fully utilize gpu memory. Current kv "
            f"cache memory in use is {gib(wanted - model.weights - model.other)} GiB.",
        )

    def _grow(self, size: int) -> None:
        if size > accounting.free_bytes(self.gpu):
            raise EngineFailure(out_of_memory(self.gpu, size))
        self.held.set(self.held.size + size)

    def _until(self, share: float) -> None:
        """Wait until this share of the load time has passed."""
        time.sleep(max(0.0, self.started + share * self.seconds - time.monotonic()))


def out_of_memory(gpu: Gpu, size: int, *, forced: bool = False) -> str:
    """torch's out-of-memory exception line; `forced` shows a card that is full whatever the accounting says."""
    total, free = gpu["usable_mib"] * MIB, max(accounting.free_bytes(gpu), 0)
    free = min(free, 98 * MIB) if forced else free
    wanted = f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.2f} MiB"
    left = f"{free / GIB:.2f} GiB" if free >= GIB else f"{free / MIB:.2f} MiB"
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {wanted}. GPU 0 has a total capacity of {total / GIB:.2f} GiB "
        f"of which {left} is free. Process {os.getpid()} has {(total - free) / GIB:.2f} GiB memory in use. "
        "If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  "
        "See documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )


def serve_commands(commands: TextIO, log: Log) -> None:
    """Live until told to stop: {"stop": timeout, "requests": n}, then {"done": true}. Ends too when the server is gone."""
    for line in commands:
        command = json.loads(line)
        if "stop" in command:
            timeout, count = command["stop"], command["requests"]
            log.info("core.py:1210", f"Shutdown initiated (timeout={timeout})")
            if count and timeout:
                log.info("core.py:1223", f"Draining {count} in-flight requests (timeout={timeout}s)")
            elif count:
                log.info("core.py:1215", f"Aborting {count} requests")
        if "done" in command:
            log.info("core.py:1233", "Shutdown complete")
            return


def report_failure(log: Log, line: str) -> None:
    """The log of an engine that failed to start: the traceback twice, by the logger and by the interpreter."""
    trace = (
        "Traceback (most recent call last):\n"
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 1082, in run_engine_core\n'
        "    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)\n"
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 119, in __init__\n'
        "    kv_cache_config = self._initialize_kv_caches(vllm_config)\n"
    )
    log.error("core.py:1108", f"EngineCore failed to start.\n{trace}{line}")
    log.raw_error("Process EngineCore:\n" + trace + line)


def _hang() -> None:
    parent = os.getppid()
    while os.getppid() == parent:  # a hung engine must not outlive a test's server
        time.sleep(0.5)
    os._exit(1)


def _own_address() -> str:
    return os.environ.get("VLLM_HOST_IP", "172.18.0.2")


def main() -> int:
    """Entry of the engine process: arguments are the JSON configuration and two file descriptors."""
    text, ready_fd, command_fd = sys.argv[1:4]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the API server's to handle
    config, gpu, started = from_json(text)
    log = Log("EngineCore")
    loader = Loader(config, gpu, started, log)
    try:
        cache = loader.load()
    except EngineFailure as failure:
        loader.held.close()
        report_failure(log, str(failure))
        return 1
    with open(int(ready_fd), "w", encoding="utf-8") as ready:
        ready.write(json.dumps({"cache": asdict(cache) if cache else None}) + "\n")
    with open(int(command_fd), encoding="utf-8") as commands:
        serve_commands(commands, log)
    loader.held.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""vLLM's log: which phase a start is in. Lines as printed by vLLM 0.19.1 (and 0.11 to 0.20, as far as they agree), and by 0.32.0 for CPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from stoker.ready.diagnosis import UNKNOWN, diagnose
from stoker.ready.logtext import LogLine, log_lines
from stoker.ready.phase import Phase, Progress
from stoker.ready.turn_log import newest_start, turn_progress

_Detail = Callable[[re.Match[str]], Progress]


def _plain(phase: Phase, detail: str = "") -> _Detail:
    return lambda found: Progress(phase, found.expand(detail) if detail else "")


def _shards(found: re.Match[str]) -> Progress:
    done, total = int(found[1]), int(found[2])
    return Progress(Phase.LOADING, f"{done} of {total} files", 100.0 * done / total if total else None)


def _graphs(found: re.Match[str]) -> Progress:
    done, total = int(found[1]), int(found[2])
    return Progress(Phase.CAPTURING, f"{done} of {total}", 100.0 * done / total if total else None)


# The last line of a log that matches one of these gives the phase.
_MARKS: Sequence[tuple[re.Pattern[str], _Detail]] = (
    (re.compile(r"vLLM server version|non-default args:"), _plain(Phase.STARTING, "reading arguments")),
    (
        re.compile(r"Resolved architecture: (\S+)|Using max model len"),
        _plain(Phase.STARTING, "reading the model's configuration"),
    ),
    (re.compile(r"Initializing a V1 LLM engine"), _plain(Phase.STARTING, "starting the engine process")),
    (re.compile(r"world_size=\d+ rank="), _plain(Phase.STARTING, "starting the engine process")),
    (re.compile(r"Starting to load model "), _plain(Phase.LOADING)),
    (re.compile(r"Time spent downloading weights for"), _plain(Phase.LOADING)),
    (
        re.compile(r"Loading (?:safetensors|pt|pytorch) checkpoint shards:\s+\d+% Completed \| (\d+)/(\d+)"),
        _shards,
    ),
    (re.compile(r"Loading weights took ([\d.]+) seconds"), _plain(Phase.LOADING, r"read in \1 s")),
    (re.compile(r"Model loading took ([\d.]+ GiB)"), _plain(Phase.LOADING, r"\1 in GPU memory")),
    (
        re.compile(r"Using cache directory: .*torch\.compile|Dynamo bytecode transform time:|Compiling a graph for"),
        _plain(Phase.COMPILING),
    ),
    # The second by 0.19.1 with torch 2.10, which keeps what Dynamo made as well.
    (
        re.compile(r"Directly load (?:the compiled graph|AOT compilation)"),
        _plain(Phase.COMPILING, "taken from the cache"),
    ),
    (re.compile(r"torch\.compile takes? |torch\.compile took"), _plain(Phase.COMPILING)),
    # The build for CPUs has words of its own for compiling and for its cache (seen in 0.32.0).
    (re.compile(r"Warming up model for the compilation|Warming up done"), _plain(Phase.COMPILING)),
    (re.compile(r"Initial profiling/warmup run took|Estimated CUDA graph memory:"), _plain(Phase.PROFILING)),
    (re.compile(r"Available KV cache memory: ([\d.]+ GiB)"), _plain(Phase.KV_CACHE, r"\1")),
    (re.compile(r"[GC]PU KV cache size: ([\d,]+ tokens)"), _plain(Phase.KV_CACHE, r"\1")),
    (
        re.compile(r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+x)"),
        _plain(Phase.KV_CACHE, r"room for \1"),
    ),
    (re.compile(r"Capturing CUDA graphs?\b[^|]*?\d+%\|[^|]*\| (\d+)/(\d+)"), _graphs),
    (re.compile(r"Graph capturing finished in (\d+) secs"), _plain(Phase.CAPTURING, r"done in \1 s")),
    (re.compile(r"init engine \(profile, create kv cache, warmup model\) took"), _plain(Phase.SERVING, "engine made")),
    (re.compile(r"Starting vLLM (?:API )?server"), _plain(Phase.SERVING)),
    (re.compile(r"Application startup complete"), _plain(Phase.SERVING)),
)


def _mark(line: LogLine) -> Progress | None:
    for pattern, make in _MARKS:
        found = pattern.search(line.text)
        if found:
            return make(found)
    return None


def vllm_progress(log: str) -> Progress | None:
    """The phase that the newest marked line of `log` names, or None when no line names one."""
    for line in reversed(newest_start(log_lines(log))):
        progress = turn_progress(line) or _mark(line)
        if progress:
            return replace(progress, line=line.text)
    return None


def vllm_phases(log: str) -> tuple[Phase, ...]:
    """The phases that the newest start in `log` names, each once, in the order in which a start passes through them."""
    marks = (turn_progress(line) or _mark(line) for line in newest_start(log_lines(log)))
    return tuple(sorted({mark.phase for mark in marks if mark}))


# vLLM 0.19.1 prints these when its engine process cannot go on; the API server mostly ends within seconds, and hangs sometimes.
_DOOMED = re.compile(
    r"EngineCore failed to start|EngineCore encountered a fatal error|Engine core initialization failed"
)


def vllm_is_doomed(log: str) -> bool:
    """Has the newest start in `log` printed an error after which it cannot become ready?"""
    lines = newest_start(log_lines(log))
    if any(_DOOMED.search(line.text) for line in lines):
        return True
    found = diagnose("vllm", [line for line in lines if line.level in ("ERROR", "CRITICAL")])
    return found is not None and found.id != UNKNOWN and not found.heals and not found.hint

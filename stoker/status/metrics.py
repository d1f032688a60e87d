"""What vLLM counts, out of its /metrics, and the rates between two looks. Pure.

Names of vLLM 0.19.1; before 0.10 the cache's gauge was ``gpu_cache_usage_perc``. Ollama has no such page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stoker.status.data import Load

RUNNING, WAITING = "num_requests_running", "num_requests_waiting"
CACHE = ("kv_cache_usage_perc", "gpu_cache_usage_perc")
PROMPT, GENERATED = "prompt_tokens_total", "generation_tokens_total"

#: Reads the page from standard input and prints these families in one line: name, value, name, value.
EXTRACT = (
    f"sed -nE 's/^vllm:({'|'.join((RUNNING, WAITING, *CACHE, PROMPT, GENERATED))})(\\{{.*\\}})? ([0-9.eE+-]+)$/\\1 \\3/p' "
    "| tr '\\n' ' '"
)

#: Seconds since the epoch, and each family's values, one for each engine process behind the server.
Sample = tuple[float, dict[str, list[float]]]


def sample(at: str, words: str) -> Sample | None:
    """One look, as `EXTRACT` prints it. None when it holds nothing."""
    found: dict[str, list[float]] = {}
    for name, value in re.findall(r"(\w+) ([0-9.eE+-]+)", words):
        try:
            found.setdefault(name, []).append(float(value))
        except ValueError:
            continue
    return (float(at), found) if RUNNING in found else None


def load(samples: Sequence[Sample]) -> Load | None:
    """The newest gauges, and the rates between the first look and the last. A counter that fell back says that the engine was
    started anew in between: no rate."""
    if not samples:
        return None
    (begun, first), (ended, last) = samples[0], samples[-1]
    seconds = ended - begun

    def rate(name: str) -> float | None:
        grown = sum(last.get(name, [])) - sum(first.get(name, []))
        return grown / seconds if seconds > 0 and name in last and grown >= 0 else None

    cache = [value for name in CACHE for value in last.get(name, [])]
    return Load(
        running=round(sum(last[RUNNING])),
        waiting=round(sum(last.get(WAITING, []))),
        kv_cache=max(cache) if cache else None,
        prompt_tokens_per_second=rate(PROMPT),
        generated_tokens_per_second=rate(GENERATED),
        seconds=max(seconds, 0.0),
    )

"""What engines count, out of their /metrics, and the rates between two looks. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stoker.engine.engine import Metrics
from stoker.status.data import Load

RUNNING, WAITING, CACHE, PROMPT, GENERATED = "running", "waiting", "kv_cache", "prompt", "generated"


def extract(names: Metrics) -> str:
    """A command that reads an engine's page from standard input and prints what is known of it in one line: name, value, name, value."""
    families = {
        names.running: RUNNING,
        names.waiting: WAITING,
        names.prompt_tokens: PROMPT,
        names.generated_tokens: GENERATED,
        **dict.fromkeys(names.kv_cache, CACHE),
    }
    rules = ";".join(
        f"s/^{names.prefix}{family}(\\{{.*\\}})? ([0-9.eE+-]+)$/{ours} \\2/p"
        for family, ours in families.items()
        if family
    )
    return f"sed -nE '{rules}' | tr '\\n' ' '"


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

    cache = last.get(CACHE, [])
    return Load(
        running=round(sum(last[RUNNING])),
        waiting=round(sum(last.get(WAITING, []))),
        kv_cache=max(cache) if cache else None,
        prompt_tokens_per_second=rate(PROMPT),
        generated_tokens_per_second=rate(GENERATED),
        seconds=max(seconds, 0.0),
    )

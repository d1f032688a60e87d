"""What the engine's log said of its memory after a start, beside what was predicted. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stoker.facts.state import SECTION
from stoker.plan.memory.predict import Prediction

#: A larger difference than this part of what was measured is reported.
LARGEST_GAP = 0.10

#: The lines of vLLM 0.19.1; from about 0.33 the last two share one line.
_PATTERN = "KV cache size: |Maximum concurrency for |Available KV cache memory: "

#: Lines of a log that are looked at: one start prints three of them.
_LINES = 6

_TOKENS = re.compile(r"[GC]PU KV cache size: ([\d,]+) tokens")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_AVAILABLE = re.compile(r"Available KV cache memory: (-?[\d.]+) GiB")


@dataclass(frozen=True)
class Measured:
    """Of the newest start. None: the log does not say it."""

    tokens: int | None = None
    concurrency: float | None = None
    available_gib: float | None = None


def read(lines: Sequence[str]) -> Measured:
    """The last line of each kind counts: a log keeps earlier starts."""
    tokens = _last(_TOKENS, lines)
    concurrency = _last(_CONCURRENCY, lines)
    available = _last(_AVAILABLE, lines)
    return Measured(
        int(tokens[1].replace(",", "")) if tokens else None,
        float(concurrency[2]) if concurrency else None,
        float(available[1]) if available else None,
    )


def _last(pattern: re.Pattern[str], lines: Sequence[str]) -> re.Match[str] | None:
    return next((found for line in reversed(lines) if (found := pattern.search(line))), None)


def logs_script(containers: Iterable[str]) -> str:
    """POSIX sh that prints what each container's log says of its memory, one section for each."""
    commands = [
        f"echo {shlex.quote(f'{SECTION}logged {name}')}; "
        f"docker logs {shlex.quote(name)} 2>&1 | grep -aE {shlex.quote(_PATTERN)} | tail -n {_LINES}"
        for name in containers
    ]
    return "\n".join([*commands, "true"])


def read_logs(output: str) -> dict[str, Measured]:
    """Container -> what its log said, from the output of :func:`logs_script` and whatever else was asked with it."""
    found = {}
    for part in output.split(f"{SECTION}logged ")[1:]:
        name, *lines = part.partition(SECTION)[0].splitlines()
        found[name.strip()] = read(lines)
    return found


def gap(predicted: Prediction, measured: Measured) -> float | None:
    """By how much of the measured tokens the prediction is off: 0.05 is 5 % too many. None where nothing was measured."""
    if not measured.tokens:
        return None
    return predicted.tokens / measured.tokens - 1


def sentence(name: str, predicted: Prediction, measured: Measured) -> tuple[bool, str] | None:
    """Whether the difference is small, and both figures in words. None where there is nothing to compare."""
    difference = gap(predicted, measured)
    if difference is None:
        return None
    small = abs(difference) <= LARGEST_GAP
    concurrency = f", {measured.concurrency:g}x" if measured.concurrency is not None else ""
    words = (
        f"{name}: KV cache of {measured.tokens:,} tokens{concurrency} at {predicted.instance.max_model_len:,} each; "
        f"predicted were {predicted.tokens:,} ({difference:+.0%})"
    )
    return small, words if small else f"{words}: more than {LARGEST_GAP:.0%} off, see docs/plan.md#gap"

"""Refuse, warn or fit: each with its arithmetic as a sentence, and with remedies that were computed like the verdict itself.

vLLM's own limits decide what is refused (0.19.1, v1/core/kv_cache_utils.py, v1/worker/utils.py). What may go either way is a warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from stoker.plan.memory.card import OVERHEAD, CardSum, FixedUse, card_sum
from stoker.plan.memory.predict import GIB, Prediction, predict

Level = Literal["fit", "warn", "refuse"]

#: Fewer requests of full length than this at once: one long request makes all others wait.
LEAST_CONCURRENCY: Final = 1.5

#: Fewer than this part of max_num_seqs.
LEAST_SHARE: Final = 4

#: The largest utilization that a remedy names: above it a card's own driver and context are in the way.
MOST_UTILIZATION: Final = 0.95


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing, and what was checked to help."""

    level: Level
    text: str
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """On one instance or one card. Without findings it simply fits."""

    subject: str
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        levels = {finding.level for finding in self.findings}
        return "refuse" if "refuse" in levels else "warn" if "warn" in levels else "fit"


def gib(size: float) -> str:
    """Bytes in words: "7.44 GiB"."""
    return f"{size / GIB:.2f} GiB"


def judge_instance(prediction: Prediction) -> Verdict:
    """One instance by itself, as if it had its card alone."""
    return Verdict(prediction.instance.name, tuple(_of_instance(prediction)))


def _of_instance(one: Prediction) -> Iterator[Finding]:
    arithmetic = _arithmetic(one)
    wish = f"one request of {one.instance.max_model_len} tokens needs {gib(one.needed)} of KV cache"
    match _trouble(one):
        case "too heavy":
            yield Finding("refuse", f"its weights of {gib(one.weights)} are more than the card's {gib(one.total)}")
        case "perhaps too heavy":
            text = (
                f"weights of {gib(one.weights)} and about {gib(one.other)} to compute may be more than {gib(one.total)}"
            )
            yield Finding("warn", text)
        case "cannot start":
            yield Finding("refuse", f"{arithmetic}; {wish}: vLLM would refuse to start", tuple(_remedies(one)))
        case "may not start":
            text = f"{arithmetic}, give or take {gib(one.tolerance)}; {wish}: vLLM may refuse to start"
            yield Finding("warn", text, tuple(_remedies(one)))
        case "too few blocks":
            text = f"num-gpu-blocks-override leaves {one.blocks} blocks, and {wish}: such a request could never run"
            yield Finding("warn", text)
        case "crowded":
            seqs = one.instance.max_num_seqs
            text = (
                f"the KV cache of {gib(one.available)} holds {one.concurrency:.2f} requests of {one.instance.max_model_len} "
                f"tokens at once, and max-num-seqs lets {seqs} run: with long requests vLLM preempts some and computes them "
                "again later; it is slower then, but does not crash"
            )
            yield Finding("warn", text, tuple(_relief(one)))


def _trouble(one: Prediction) -> str | None:
    """The first thing that is wrong with an instance that has its card alone; None: it fits."""
    if not one.has_cache:
        if one.weights > one.total:
            return "too heavy"
        return "perhaps too heavy" if one.weights + one.other > one.total else None
    if one.most_available < one.needed:
        return "cannot start"
    if one.least_available < one.needed:
        return "may not start"
    if one.blocks < one.pool.blocks_of_request(one.instance.max_model_len):
        return "too few blocks"
    enough = max(LEAST_CONCURRENCY, one.instance.max_num_seqs / LEAST_SHARE)
    return "crowded" if (one.concurrency or 0) < enough else None


def _arithmetic(one: Prediction) -> str:
    if one.instance.kv_cache_memory_bytes is not None:
        return f"kv-cache-memory-bytes gives {gib(one.available)} for the KV cache"
    parts = [f"{gib(one.weights)} weights", f"about {gib(one.other)} to compute"]
    parts += [f"about {gib(one.graphs)} CUDA graphs"] if one.graphs else []
    share = f"{one.instance.utilization:g} of {gib(one.total)} is {gib(one.requested)}"
    return f"{share}; less {', '.join(parts)} leaves {gib(one.available)} for the KV cache"


def _relief(one: Prediction) -> Iterator[str]:
    """With what a crowded instance fits."""
    most = int((one.concurrency or 0) * LEAST_SHARE)
    if most and _trouble(predict(replace(one.instance, max_num_seqs=most), one.total)) is None:
        yield f"max-num-seqs {most}"
    shorter = _longest(one, lambda other: _trouble(other) is None)
    if shorter:
        yield f"max-model-len {shorter}"


def _remedies(one: Prediction) -> Iterator[str]:
    """What lets it start for certain: each is the smallest change of its kind, and was predicted."""
    shorter = longest_start(one)
    if shorter:
        yield f"max-model-len {shorter}"
    if one.instance.kv_cache_memory_bytes is not None:
        larger = predict(replace(one.instance, kv_cache_memory_bytes=one.needed), one.total)
        if card_sum(one.total, [larger]).leftover >= 0:
            yield f"kv-cache-memory-bytes {one.needed}, if the card has no one else on it"
        return
    for percent in range(math.floor(one.instance.utilization * 100) + 1, round(MOST_UTILIZATION * 100) + 1):
        if starts(predict(replace(one.instance, utilization=percent / 100), one.total)):
            yield f"gpu-memory-utilization {percent / 100:g}, if the card has no one else on it"
            return


def starts(one: Prediction) -> bool:
    """For certain, whatever this start leaves it."""
    return one.least_available >= one.needed


def longest_start(one: Prediction) -> int | None:
    """The longest context under its own with which it starts for certain."""
    return _longest(one, starts)


def _longest(one: Prediction, good: Callable[[Prediction], bool]) -> int | None:
    """The longest context under its own, in whole 256 tokens, with which all is good."""
    low, high = 0, (one.instance.max_model_len - 1) // 256
    while low < high:
        middle = (low + high + 1) // 2
        if good(predict(replace(one.instance, max_model_len=middle * 256), one.total)):
            low = middle
        else:
            high = middle - 1
    return low * 256 or None


def judge_card(name: str, total: int, instances: Sequence[Prediction], fixed: Sequence[FixedUse] = ()) -> Verdict:
    """All that lies on one card together."""
    return Verdict(name, tuple(_of_card(card_sum(total, instances, fixed))))


def _of_card(card: CardSum) -> Iterator[Finding]:
    text = _sum_in_words(card)
    if card.surely_too_much:
        yield Finding("refuse", f"{text}: the last to start would not find free what it asks for", tuple(_room(card)))
    elif card.leftover < 0:
        text = f"{text}: {gib(-card.leftover)} too much; it may start, and run out of memory under load"
        yield Finding("warn", text, tuple(_room(card)))
    if not card.surely_too_much:
        yield from _trade(card)


def _sum_in_words(card: CardSum) -> str:
    parts = [f"{one.instance.name} {gib(one.claim)}" for one in card.instances]
    parts += [f"{use.name} {gib(use.bytes)}" for use in card.fixed]
    if card.overhead:
        parts.append(f"about {gib(card.overhead)} for CUDA itself")
    return f"{' + '.join(parts)} of {gib(card.total)}"


def _room(card: CardSum) -> Iterator[str]:
    """Fewer instances, or a smaller share for each, with which everything fits."""
    for number in range(len(card.instances) - 1, 0, -1):
        if card_sum(card.total, card.instances[:number], card.fixed).leftover >= 0:
            yield f"{number} of these {len(card.instances)} instances on this card"
            break
    free = card.total - card.overhead - card.fixed_bytes
    percent = math.floor(100 * free / card.total / max(len(card.instances), 1))
    smaller = [
        predict(replace(one.instance, utilization=percent / 100), card.total)
        for one in card.instances
        if one.instance.kv_cache_memory_bytes is None and one.has_cache and percent > 0
    ]
    if len(smaller) != len(card.instances) or not smaller:
        return
    fits = card_sum(card.total, smaller, card.fixed).leftover >= 0
    if fits and all(starts(one) for one in smaller):
        yield f"gpu-memory-utilization {percent / 100:g} for each of the {len(smaller)}"


def _trade(card: CardSum) -> Iterator[Finding]:
    """What several instances of one model cost against a single one: weights and prefix cache are not shared."""
    first = card.instances[0] if card.instances else None
    same = [
        one for one in card.instances if first and replace(one.instance, name="") == replace(first.instance, name="")
    ]
    if first is None or len(same) < 2 or len(same) != len(card.instances) or not first.has_cache:
        return
    percent = math.floor(100 * (card.total - OVERHEAD - card.fixed_bytes) / card.total)
    share = min(percent / 100, MOST_UTILIZATION, first.instance.utilization * len(same))
    one = predict(replace(first.instance, utilization=share), card.total)
    yield Finding(
        "fit",
        f"{len(same)} instances hold the weights {len(same)} times ({gib(first.weights)} each) and {len(same)} KV caches of "
        f"{gib(first.available)}; one instance at {share:g} would have one of {gib(one.available)}, shared by all requests. "
        "What the others buy is that one can fail alone, and more work on the processor at once; it is not memory",
    )

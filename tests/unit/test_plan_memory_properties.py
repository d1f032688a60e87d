"""Whatever the model, the arguments and the card: more of what helps never makes it worse, and a verdict keeps its promises.

The values come from a generator with a fixed seed, so that a failure can be repeated; a case shows all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.startup_logs import configs

from stoker.plan.memory.card import FixedUse, card_sum
from stoker.plan.memory.kv_cache import CacheSettings
from stoker.plan.memory.layout import Layout, layout_of
from stoker.plan.memory.predict import GIB, InstanceMemory, Prediction, predict
from stoker.plan.memory.verdict import judge_card, judge_instance

LAYOUTS = [layout_of(config) for config in configs().values()]
MISTRAL = Layout("keys and values", (4096,) * 32, 8, 128, 0, 32768, 32000)
ENCODER = Layout("none", (), 0, 0, 0, 8194, 250002)

Case = tuple[InstanceMemory, int]


def draw(seed: int) -> Case:
    """An instance and its card's bytes."""
    pick = random.Random(seed)
    settings = CacheSettings(
        version=pick.choice([(0, 19), (0, 22), (0, 32)]),
        max_num_batched_tokens=pick.choice([512, 2048, 8192]),
        block_size=pick.choice([16, 32, 64, 128]),
        kv_cache_dtype=pick.choice(["auto", "fp8"]),
        tensor_parallel=pick.choice([1, 2, 4]),
        pipeline_parallel=pick.choice([1, 2, 3]),
        draft_layers=pick.choice([0, 0, 1]),
        hybrid=pick.choice([True, True, False]),
    )
    instance = InstanceMemory(
        f"case {seed}",
        pick.choice([*LAYOUTS, MISTRAL, ENCODER]),
        round(pick.uniform(1, 60) * GIB),
        pick.choice([512, 1000, 8192, 16384, 131072]),
        settings,
        utilization=round(pick.uniform(0.05, 0.98), 2),
        max_num_seqs=pick.choice([1, 16, 32, 256]),
        other_bytes=pick.choice([None, 0, GIB]),
        enforce_eager=pick.choice([True, False]),
    )
    return instance, round(pick.choice([15.0, 23.6, 31.73, 79.18]) * GIB)


CASES = [draw(seed) for seed in range(400)]


def one(case: Case) -> Prediction:
    return predict(*case)


def with_settings(case: Case, **changes: Any) -> Case:
    instance, total = case
    return replace(instance, settings=replace(instance.settings, **changes)), total


def with_instance(case: Case, **changes: Any) -> Case:
    instance, total = case
    return replace(instance, **changes), total


#: Each change makes room, or takes none.
MORE_ROOM: dict[str, Callable[[Case], Case]] = {
    "utilization": lambda case: with_instance(case, utilization=min(1.0, case[0].utilization + 0.01)),
    "card": lambda case: (case[0], case[1] + GIB),
    "weights": lambda case: with_instance(case, weights_bytes=case[0].weights_bytes - GIB // 2),
    "other": lambda case: with_instance(case, other_bytes=0),
    "requests": lambda case: with_instance(case, max_num_seqs=1),
    "graphs": lambda case: with_instance(case, enforce_eager=True),
    "fp8": lambda case: with_settings(case, kv_cache_dtype="fp8"),
    "draft": lambda case: with_settings(case, draft_layers=0),
    "tensor parallel": lambda case: with_settings(case, tensor_parallel=case[0].settings.tensor_parallel * 2),
}


@pytest.mark.parametrize("change", MORE_ROOM)
def test_more_room_is_never_fewer_tokens(change: str) -> None:
    for case in CASES:
        before, after = one(case), one(MORE_ROOM[change](case))
        # With a draft's layer gone the layers may fall into other groups, so the pool is not compared, what it serves is.
        if change == "draft" and len(before.pool.groups) != len(after.pool.groups):
            continue
        assert after.available >= before.available, case
        assert after.tokens >= before.tokens, case
        assert (after.concurrency or 0) >= (before.concurrency or 0), case
        assert after.longest >= before.longest, case
        assert after.needed <= before.needed, case


def test_some_of_these_changes_make_a_difference() -> None:
    """So that the comparison above is one."""
    for change in MORE_ROOM:
        assert any(one(MORE_ROOM[change](case)).tokens > one(case).tokens for case in CASES), change


def test_a_longer_context_is_never_more_at_once() -> None:
    for case in CASES:
        before = one(case)
        after = one(with_instance(case, max_model_len=case[0].max_model_len * 2))
        assert (after.concurrency or 0) <= (before.concurrency or 0), case
        assert after.needed >= before.needed, case


def test_more_batched_tokens_never_need_less() -> None:
    for case in CASES:
        before = one(case)
        after = one(with_settings(case, max_num_batched_tokens=case[0].settings.max_num_batched_tokens * 2))
        assert after.needed >= before.needed, case
        assert after.blocks == before.blocks, case


def test_the_longest_context_fits_and_one_token_more_does_not() -> None:
    for case in CASES:
        found = one(case)
        if not found.has_cache:
            continue
        limit = max(case[0].max_model_len, case[0].layout.positions or 0)
        assert 0 <= found.longest <= limit, case
        if found.longest:
            assert found.pool.bytes_of_request(found.longest) <= found.available, case
        if found.longest < limit:
            assert found.pool.bytes_of_request(found.longest + 1) > found.available, case


def test_a_verdict_follows_the_engine_within_what_is_not_known() -> None:
    """Refused is only what fails even with nothing beside the weights; what fits starts even in the bad case."""
    seen = set()
    for case in CASES:
        found = one(case)
        level = judge_instance(found).level
        seen.add(level)
        if not found.has_cache:
            continue
        if level == "refuse":
            assert max(found.requested - found.weights, 0) < max(found.needed, 1), case
        if level == "fit":
            assert found.least_available >= found.needed, case
    assert seen == {"refuse", "warn", "fit"}


def test_remedies_are_true() -> None:
    """Whatever a verdict on an instance proposes, it lifts the verdict as it says."""
    tried = 0
    for case in CASES:
        instance, total = case
        for finding in judge_instance(one(case)).findings:
            for remedy in finding.remedies:
                name, _, value = remedy.split(",")[0].partition(" ")
                field = {"gpu-memory-utilization": "utilization"}.get(name, name.replace("-", "_"))
                helped = predict(replace(instance, **{field: float(value) if "." in value else int(value)}), total)
                assert helped.least_available >= helped.needed, (remedy, case)
                if name == "max-num-seqs":
                    assert judge_instance(helped).level == "fit", (remedy, case)
                tried += 1
    assert tried > 100


def test_a_card_takes_more_and_more_until_it_refuses() -> None:
    order = {"fit": 0, "warn": 1, "refuse": 2}
    for case in CASES[:200]:
        found = one(case)
        levels = [order[judge_card("card", case[1], [found] * number).level] for number in range(1, 25)]
        assert levels == sorted(levels), case
        more = [card_sum(case[1], [found], [FixedUse("x", size)]).leftover for size in (0, GIB)]
        assert more[0] - more[1] == GIB

"""The planner's arithmetic against public start-up logs of vLLM: what the engine printed is what is computed."""

from __future__ import annotations

import pytest
from support.startup_logs import ROUNDING, Entry, instance, layout, logs, pool, profiles, refusals

from stoker.plan.memory.predict import GIB, TOLERANCE, predict
from stoker.plan.memory.verdict import judge_instance


def named(entries: list[Entry], *wanted: str) -> list[object]:
    """As parameters, those that have these fields, named after their source."""
    have = [entry for entry in entries if all(field in entry for field in wanted)]
    return [pytest.param(entry, id=f"{entry['source']}, {entry['max_model_len']}") for entry in have]


def blocks_by_memory(entry: Entry) -> tuple[int, int]:
    """Fewest and most blocks that the logged size, which is rounded, can stand for."""
    size = round(entry["available"] * GIB)
    one = pool(entry)
    return one.blocks(size - ROUNDING), one.blocks(size + ROUNDING)


def test_there_are_enough_of_them_and_of_every_kind() -> None:
    everything = logs() + refusals()
    assert len(everything) >= 20
    layouts = [layout(entry) for entry in everything]
    assert {one.kind for one in layouts} == {"keys and values", "latent"}
    assert any(len(set(one.windows)) > 1 for one in layouts)
    assert any(one.indexer_bytes for one in layouts)
    assert any(entry.get("pipeline_parallel") for entry in everything)


@pytest.mark.parametrize("entry", named(logs(), "available", "tokens"))
def test_tokens(entry: Entry) -> None:
    fewest, most = blocks_by_memory(entry)
    length = entry["max_model_len"]
    assert pool(entry).tokens(fewest, length) <= entry["tokens"] <= pool(entry).tokens(most, length)


@pytest.mark.parametrize("entry", named(logs(), "available", "blocks"))
def test_blocks(entry: Entry) -> None:
    fewest, most = blocks_by_memory(entry)
    assert fewest <= entry["blocks"] <= most


@pytest.mark.parametrize("entry", named(logs(), "concurrency"))
def test_concurrency_to_the_printed_digits(entry: Entry) -> None:
    """From the blocks if they were logged, else from the tokens, which stand for a whole number of blocks in each group."""
    one = pool(entry)
    groups = len(one.groups)
    if "blocks" in entry:
        possible = [entry["blocks"]]
    else:
        in_each = entry["tokens"] // one.block_size
        possible = [in_each * groups + more for more in range(groups)]
    printed = {f"{one.concurrency(blocks, entry['max_model_len']):.2f}" for blocks in possible}
    assert f"{entry['concurrency']:.2f}" in printed


@pytest.mark.parametrize("entry", named(refusals()))
def test_what_one_request_needs(entry: Entry) -> None:
    needed = pool(entry).bytes_of_request(entry["max_model_len"])
    assert f"{needed / GIB:.2f}" == f"{entry['needed']:.2f}"


@pytest.mark.parametrize("entry", named(refusals(), "longest"))
def test_the_longest_context_that_would_have_fitted(entry: Entry) -> None:
    size = round(entry["available"] * GIB)
    limit = entry["max_model_len"]
    assert (
        pool(entry).longest(size - ROUNDING, limit) <= entry["longest"] <= pool(entry).longest(size + ROUNDING, limit)
    )


@pytest.mark.parametrize("entry", named(profiles(), "kv_cache"))
def test_what_is_left_for_the_cache(entry: Entry) -> None:
    """With the rest as measured, to the rounding of four figures; with the guess, within what two starts may differ by."""
    other = round((entry["activation"] + entry["other"]) * GIB)
    total = round(entry["total"] * GIB)
    measured = predict(instance(entry, other_bytes=other), total)
    assert measured.available / GIB == pytest.approx(entry["kv_cache"], abs=0.03)
    guessed = predict(instance(entry), total)
    assert abs(guessed.available - entry["kv_cache"] * GIB) < TOLERANCE


@pytest.mark.parametrize("entry", named(profiles(), "starts"))
def test_nothing_is_refused_that_started_and_nothing_fits_that_did_not(entry: Entry) -> None:
    level = judge_instance(predict(instance(entry), round(entry["total"] * GIB))).level
    assert level in ({"fit", "warn"} if entry["starts"] else {"warn", "refuse"})

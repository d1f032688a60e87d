"""The memory plan: worked examples, sums on a card, verdicts and their remedies."""

from __future__ import annotations

import importlib
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stoker.plan.memory.card import FixedUse, card_sum
from stoker.plan.memory.kv_cache import CacheSettings, bytes_per_token_and_layer, pool_of, version_of
from stoker.plan.memory.layout import Layout, layout_of
from stoker.plan.memory.predict import GIB, InstanceMemory, Prediction, predict
from stoker.plan.memory.verdict import Verdict, judge_card, judge_instance

CONFIGS = Path(__file__).parents[2] / "lab" / "models" / "configs"

#: A V100 with 32 GB, as torch reads it.
V100 = round(31.73 * GIB)
PIN = (0, 19)


def published(model: str) -> Layout:
    return layout_of(json.loads((CONFIGS / model / "config.json").read_text("utf-8")))


def llama(**changes: Any) -> InstanceMemory:
    """One of the default fleet's Llama instances."""
    return replace(
        InstanceMemory(
            "llama",
            published("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4"),
            round(5.34 * GIB),
            8192,
            CacheSettings(PIN, block_size=64, dtype="half"),
            utilization=0.45,
            max_num_seqs=16,
        ),
        **changes,
    )


def qwen(**changes: Any) -> InstanceMemory:
    """The default fleet's Qwen instance."""
    return replace(
        InstanceMemory(
            "qwen",
            published("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8"),
            round(15.50 * GIB),
            16384,
            CacheSettings(PIN, block_size=128, dtype="half"),
            utilization=0.85,
            max_num_seqs=32,
        ),
        **changes,
    )


def bge(**changes: Any) -> InstanceMemory:
    layout = published("BAAI/bge-m3")
    return replace(InstanceMemory("bge", layout, round(1.06 * GIB), 8192, CacheSettings(PIN)), **changes)


def on_v100(instance: InstanceMemory) -> Prediction:
    return predict(instance, V100)


def judged(instance: InstanceMemory) -> Verdict:
    return judge_instance(on_v100(instance))


@pytest.mark.parametrize(
    ("instance", "other", "request_gib", "cache_gib", "tokens", "concurrency"),
    [
        (llama(), 1.0, "14.28", "7.94", 65024, "7.94"),
        (llama(), 1.5, "14.28", "7.44", 60928, "7.44"),
        (qwen(), 1.5, "26.97", "9.97", 54400, "3.32"),
        (qwen(), 2.0, "26.97", "9.47", 51712, "3.16"),
    ],
)
def test_worked_examples(
    instance: InstanceMemory, other: float, request_gib: str, cache_gib: str, tokens: int, concurrency: str
) -> None:
    """The figures that the project's plan starts from, to the block."""
    one = on_v100(replace(instance, other_bytes=round(other * GIB)))
    assert f"{one.requested / GIB:.2f}" == request_gib
    assert f"{one.available / GIB:.2f}" == cache_gib
    assert one.tokens == tokens
    assert f"{one.concurrency:.2f}" == concurrency


def test_with_the_exact_size_of_the_weights() -> None:
    """16.65 GB instead of the printed 15.50 GiB: one block less."""
    one = on_v100(qwen(weights_bytes=16_650_000_000, other_bytes=2 * GIB))
    assert one.tokens == 51584


def test_what_is_shown_adds_up() -> None:
    one = on_v100(llama())
    assert one.requested == math.ceil(V100 * 0.45)
    assert one.requested - one.weights - one.other - one.graphs == one.available
    assert one.graphs == 0


def test_graphs_are_subtracted_from_0_21_on_unless_there_are_none() -> None:
    newer = CacheSettings((0, 21), block_size=64)
    assert on_v100(llama(settings=newer)).available < on_v100(llama()).available
    assert on_v100(llama(settings=newer, enforce_eager=True)).available == on_v100(llama()).available


def test_the_cache_set_by_hand() -> None:
    one = on_v100(llama(kv_cache_memory_bytes=2 * GIB))
    assert (one.available, one.tokens, one.tolerance) == (2 * GIB, 16384, 0)
    assert on_v100(llama(num_gpu_blocks_override=100)).tokens == 6400


def test_versions() -> None:
    assert version_of("v0.19.1") == version_of("0.19") == (0, 19)
    with pytest.raises(ValueError, match="latest"):
        version_of("latest")


# --- rules for other layouts ------------------------------------------------------------------------------------------------


def test_padding_layers_take_memory() -> None:
    """Gemma 3 27B: 10 full and 52 sliding layers make 7 groups of 10."""
    text = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "sliding_window": 1024,
    }
    pool = pool_of(layout_of(text), CacheSettings((0, 19)))
    assert len(pool.groups) == 7
    assert pool.block_bytes == 10 * 16 * 2 * 16 * 128 * 2


def mixed(full: int, sliding: int) -> Layout:
    windows = (None,) * full + (1024,) * sliding
    return Layout("keys and values", windows, 8, 128, 0, None, None)


@pytest.mark.parametrize(
    ("full", "sliding", "width", "groups"),
    [(12, 12, 12, 2), (13, 12, 13, 2), (10, 14, 14, 2), (10, 15, 10, 3), (5, 29, 5, 7), (24, 0, 24, 1), (0, 24, 24, 1)],
)
def test_groups_of_layers(full: int, sliding: int, width: int, groups: int) -> None:
    """The rarer kind gives the size, or the commoner if it is under 1.5 times that."""
    pool = pool_of(mixed(full, sliding), CacheSettings((0, 19)))
    assert pool.block_bytes == width * 16 * 2 * 8 * 128 * 2
    assert len(pool.groups) == groups


def test_a_window_needs_one_block_more_than_it_spans() -> None:
    pool = pool_of(mixed(0, 24), CacheSettings((0, 19), max_num_batched_tokens=2048))
    assert pool.blocks_of_request(100_000) == math.ceil((1023 + 2048) / 16) + 1
    assert pool.blocks_of_request(160) == 10 + 1
    twice = pool_of(mixed(0, 24), CacheSettings((0, 32), max_num_batched_tokens=2048, batches_in_flight=2))
    assert twice.blocks_of_request(100_000) == math.ceil((1023 + 4096) / 16) + 1


def test_the_newest_token_is_in_its_own_window() -> None:
    layout = replace(mixed(0, 24), windows=(1025,) * 24)
    pool = pool_of(layout, CacheSettings((0, 19), max_num_batched_tokens=2048))
    assert pool.blocks_of_request(100_000) == (1024 + 2048) // 16 + 1


def test_without_the_hybrid_manager_windows_save_nothing() -> None:
    pool = pool_of(mixed(5, 29), CacheSettings((0, 19), hybrid=False))
    assert pool.groups == (None,)
    assert pool.block_bytes == 34 * 16 * 2 * 8 * 128 * 2


def latent(indexer: int = 0) -> Layout:
    return Layout("latent", (None,) * 61, 1, 576, indexer, None, None)


def test_a_latent_is_not_doubled_and_not_divided() -> None:
    for cards in (1, 8):
        assert bytes_per_token_and_layer(latent(), CacheSettings((0, 19), tensor_parallel=cards)) == 1152
    assert bytes_per_token_and_layer(latent(132), CacheSettings((0, 19))) == 1284
    assert bytes_per_token_and_layer(latent(), CacheSettings((0, 19), kv_cache_dtype="fp8_ds_mla")) == 656


@pytest.mark.parametrize(("cards", "size"), [(1, 8), (2, 4), (8, 1), (16, 1)])
def test_heads_are_divided_with_at_least_one_on_each_card(cards: int, size: int) -> None:
    settings = CacheSettings((0, 19), tensor_parallel=cards)
    assert bytes_per_token_and_layer(mixed(24, 0), settings) == 2 * size * 128 * 2


@pytest.mark.parametrize(
    ("dtype", "cache", "element"),
    [("auto", "auto", 2), ("half", "auto", 2), ("float32", "auto", 4), ("half", "fp8", 1), ("float32", "bfloat16", 2)],
)
def test_data_types(dtype: str, cache: str, element: int) -> None:
    settings = CacheSettings((0, 19), dtype=dtype, kv_cache_dtype=cache)
    assert bytes_per_token_and_layer(mixed(24, 0), settings) == 2 * 8 * 128 * element


def test_an_unknown_data_type_is_said() -> None:
    with pytest.raises(ValueError, match="int3"):
        bytes_per_token_and_layer(mixed(24, 0), CacheSettings((0, 19), kv_cache_dtype="int3"))


def test_a_draft_layer_counts_and_lies_on_the_last_stage() -> None:
    plain = CacheSettings((0, 19), pipeline_parallel=2)
    draft = CacheSettings((0, 19), pipeline_parallel=2, draft_layers=1)
    page = 16 * 2 * 8 * 128 * 2
    assert pool_of(mixed(24, 0), plain).block_bytes == 12 * page
    assert pool_of(mixed(24, 0), draft).block_bytes == 13 * page
    assert pool_of(mixed(25, 0), plain).block_bytes == 13 * page
    # The layer that does not divide is with the first stage, so that the draft's makes both equal.
    assert pool_of(mixed(25, 0), draft).block_bytes == 13 * page


def test_pipeline_stages_share_each_group_of_a_mixed_model() -> None:
    """Two stages of full, sliding, sliding: each has one layer of each of the three groups, and no padding."""
    layout = replace(mixed(0, 0), windows=(None, 1024, 1024) * 2)
    pool = pool_of(layout, CacheSettings((0, 19), pipeline_parallel=2))
    assert len(pool.groups) == 3
    assert pool.block_bytes == 16 * 2 * 8 * 128 * 2


def test_tokens_of_a_mixed_model_by_version() -> None:
    """Before 0.21 blocks // groups * block size; from then on what the requests at once are worth."""
    older, newer = (pool_of(mixed(10, 20), CacheSettings(version)) for version in ((0, 20), (0, 21)))
    blocks, length = 30_001, 100_000
    assert older.tokens(blocks, length) == 10_000 * 16
    assert newer.tokens(blocks, length) == int(blocks / newer.blocks_of_request(length) * length)
    assert newer.tokens(blocks, length) > 2 * older.tokens(blocks, length)


# --- verdicts ---------------------------------------------------------------------------------------------------------------


def test_two_llama_on_a_v100_fit_with_a_note_on_what_they_cost() -> None:
    pair = [on_v100(llama()), on_v100(llama())]
    assert [judge_instance(one).level for one in pair] == ["fit", "fit"]
    verdict = judge_card("GPU 0", V100, pair)
    assert verdict.level == "fit"
    (note,) = verdict.findings
    assert "5.34 GiB each" in note.text
    one = on_v100(llama(utilization=0.9))
    assert f"{one.available / GIB:.2f} GiB" in note.text


def test_one_qwen_on_a_v100_fits_the_card_and_is_warned_of_its_32_requests() -> None:
    one = on_v100(qwen())
    assert judge_card("GPU 2", V100, [one]).findings == ()
    verdict = judge_instance(one)
    assert verdict.level == "warn"
    (finding,) = verdict.findings
    assert "does not crash" in finding.text
    assert f"{one.concurrency:.2f} requests of 16384 tokens" in finding.text


def test_two_qwen_on_a_v100_do_not_fit() -> None:
    verdict = judge_card("GPU 2", V100, [on_v100(qwen()), on_v100(qwen())])
    assert verdict.level == "refuse"
    (finding,) = verdict.findings
    assert "31.73 GiB" in finding.text
    assert "1 of these 2 instances on this card" in finding.remedies


def test_two_qwen_at_0_45_have_no_room_for_their_weights() -> None:
    verdict = judged(qwen(utilization=0.45))
    assert verdict.level == "refuse"
    assert "weights" in verdict.findings[0].text


def remedy(verdict: Verdict, name: str) -> float:
    """The value that a verdict proposes for an argument."""
    (found,) = [text for finding in verdict.findings for text in finding.remedies if text.startswith(name)]
    return float(found.split()[1].rstrip(","))


@pytest.mark.parametrize("instance", [llama(max_model_len=131072), qwen(utilization=0.6), llama(utilization=0.22)])
def test_remedies_of_a_refusal_help_and_one_step_less_does_not(instance: InstanceMemory) -> None:
    verdict = judged(instance)
    assert verdict.level != "fit"
    share = remedy(verdict, "gpu-memory-utilization")
    starts = on_v100(replace(instance, utilization=share))
    assert starts.least_available >= starts.needed
    less = on_v100(replace(instance, utilization=round(share - 0.01, 2)))
    assert less.least_available < less.needed


def test_a_shorter_context_is_proposed_that_starts_for_certain() -> None:
    long = llama(max_model_len=131072)
    verdict = judged(long)
    assert verdict.level == "refuse"
    length = int(remedy(verdict, "max-model-len"))
    shorter = on_v100(replace(long, max_model_len=length))
    assert shorter.least_available >= shorter.needed
    more = on_v100(replace(long, max_model_len=length + 256))
    assert more.least_available < more.needed


def test_fewer_requests_are_proposed_that_fit() -> None:
    verdict = judged(qwen())
    most = int(remedy(verdict, "max-num-seqs"))
    assert judged(qwen(max_num_seqs=most)).level == "fit"
    assert judged(qwen(max_num_seqs=most + 1)).level == "warn"


def test_a_cache_set_by_hand_is_judged_without_tolerance() -> None:
    needed = on_v100(llama()).needed
    assert judged(llama(kv_cache_memory_bytes=needed - 1)).level == "refuse"
    assert judged(llama(kv_cache_memory_bytes=needed, max_num_seqs=1)).findings[0].level == "warn"  # under 1.5
    assert judged(llama(kv_cache_memory_bytes=4 * needed)).level == "fit"
    more = f"kv-cache-memory-bytes {needed}, if the card has no one else on it"
    assert more in judged(llama(kv_cache_memory_bytes=needed - 1)).findings[0].remedies


def test_blocks_set_by_hand_that_no_request_could_use() -> None:
    verdict = judged(llama(num_gpu_blocks_override=10))
    assert verdict.level == "warn"
    assert "could never run" in verdict.findings[0].text


def test_between_certain_refusal_and_certain_fit_it_is_a_warning() -> None:
    """From too small a share to enough, the verdict passes through a warning once."""
    levels = [judged(llama(utilization=percent / 100)).level for percent in range(15, 60)]
    order = [level for at, level in enumerate(levels) if at == 0 or levels[at - 1] != level]
    assert order == ["refuse", "warn", "fit"]
    assert levels.count("warn") >= 3


@pytest.mark.parametrize(("spare", "level"), [(1.20, "warn"), (1.26, "fit")])
def test_a_start_may_leave_as_much_less_as_two_starts_differed(spare: float, level: str) -> None:
    """9.10 and 10.33 GiB by one command: 1.23 GiB more than a request needs are enough, less may not be."""
    at_rest = llama(max_num_seqs=1, max_model_len=2048)
    one = on_v100(at_rest)
    weights = one.requested - one.other - one.needed - round(spare * GIB)
    assert judged(replace(at_rest, weights_bytes=weights)).level == level


def test_an_encoder_is_judged_by_its_weights() -> None:
    one = on_v100(bge())
    assert (one.tokens, one.concurrency, one.needed) == (0, None, 0)
    assert judge_instance(one).level == "fit"
    assert judged(bge(weights_bytes=31 * GIB)).level == "warn"
    assert judged(bge(weights_bytes=32 * GIB)).level == "refuse"


def test_an_encoder_claims_what_it_uses() -> None:
    assert on_v100(bge()).claim < 3 * GIB


def test_what_else_lies_on_the_card_counts() -> None:
    pair = [on_v100(llama()), on_v100(llama())]
    ollama = FixedUse("bge-m3 in Ollama", 2 * GIB)
    assert judge_card("GPU 0", V100, pair, [ollama]).level == "warn"
    assert "bge-m3 in Ollama 2.00 GiB" in judge_card("GPU 0", V100, pair, [ollama]).findings[0].text
    assert judge_card("GPU 0", V100, pair, [FixedUse("x", 8 * GIB)]).level == "refuse"
    assert judge_card("GPU 0", V100, [], [ollama]).level == "fit"


def test_shares_that_add_up_to_the_whole_card_are_a_warning_and_the_proposed_share_fits() -> None:
    pair = [on_v100(llama(utilization=0.5)), on_v100(llama(utilization=0.5))]
    verdict = judge_card("GPU 0", V100, pair)
    assert verdict.level == "warn"
    share = remedy(verdict, "gpu-memory-utilization")
    smaller = [on_v100(llama(utilization=share)), on_v100(llama(utilization=share))]
    assert judge_card("GPU 0", V100, smaller).level == "fit"
    assert card_sum(V100, smaller).leftover >= 0


def test_a_cache_set_by_hand_still_has_to_pass_the_start_check() -> None:
    """vLLM asks for utilization * total to be free even if the size of the cache is given."""
    pair = [on_v100(llama(utilization=0.9, kv_cache_memory_bytes=4 * GIB)) for _ in range(2)]
    assert judge_card("GPU 0", V100, pair).level == "refuse"
    small = [on_v100(llama(utilization=0.3, kv_cache_memory_bytes=4 * GIB)) for _ in range(2)]
    assert judge_card("GPU 0", V100, small).level == "fit"


def test_different_models_on_one_card_get_no_note_on_a_trade() -> None:
    both = [on_v100(llama()), on_v100(llama(max_model_len=4096))]
    assert judge_card("GPU 0", V100, both).findings == ()


def test_fifty_hosts_with_eight_instances_each() -> None:
    instances = [llama(), qwen()] * 200
    start = time.process_time()
    predicted = [predict(instance, V100) for instance in instances]
    assert time.process_time() - start < 0.1
    for one in predicted:
        judge_instance(one)
    assert time.process_time() - start < 0.5


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The arithmetic of the lab's stand-in for vLLM."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "lab" / "doubles" / "vllm")
    return importlib.import_module("lab_vllm.memory")


def test_the_lab_s_vllm_counts_the_same(double: Any) -> None:
    """What `stoker plan` says of the lab is what its engines print."""
    for instance in (llama(), qwen(), llama(max_model_len=1000), qwen(utilization=0.7)):
        one = on_v100(instance)
        block_size = instance.settings.block_size
        cache = double.plan_kv_cache(
            one.available, one.pool.block_bytes // block_size, block_size, instance.max_model_len
        )
        assert double.requested(V100, instance.utilization) == one.requested
        assert (cache.blocks, cache.tokens, cache.concurrency) == (one.blocks, one.tokens, one.concurrency)
    long = on_v100(llama(max_model_len=131072))
    with pytest.raises(ValueError, match=f"estimated maximum model length is {long.longest}") as error:
        double.plan_kv_cache(long.available, long.pool.block_bytes // 64, 64, 131072)
    assert f"({long.needed // GIB}.0 GiB KV cache is needed" in str(error.value)

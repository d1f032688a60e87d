"""What a model keeps for each token, from its config.json: understood, or refused by the name of the field."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.startup_logs import configs

from stoker.plan.memory.kv_cache import CacheSettings, bytes_per_token_and_layer
from stoker.plan.memory.layout import Layout, UnknownLayout, layout_of

CONFIGS = Path(__file__).parents[2] / "lab" / "models" / "configs"


def published(model: str) -> Layout:
    return layout_of(json.loads((CONFIGS / model / "config.json").read_text("utf-8")))


def llama(**changes: Any) -> dict[str, Any]:
    """A plain config.json; a change to None leaves a field out."""
    config = {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "max_position_embeddings": 131072,
        "vocab_size": 128256,
        **changes,
    }
    return {name: value for name, value in config.items() if value is not None}


@pytest.mark.parametrize(
    ("model", "kib"),
    [
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", 128),
        ("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8", 192),
        ("Qwen/Qwen3-4B", 144),
        ("BAAI/bge-m3", 0),
    ],
)
def test_bytes_per_token_of_the_default_models(model: str, kib: int) -> None:
    layout = published(model)
    per_layer = bytes_per_token_and_layer(layout, CacheSettings((0, 19)))
    assert per_layer * len(layout.windows) == kib * 1024


def test_an_encoder_keeps_nothing() -> None:
    layout = published("BAAI/bge-m3")
    assert layout.kind == "none"
    assert layout.heads_in_words == "no KV cache"


def test_without_key_value_heads_there_is_one_for_each_head() -> None:
    assert layout_of(llama(num_key_value_heads=None)).kv_heads == 32


def test_multi_query_is_one_head_except_in_the_newer_falcon() -> None:
    falcon = llama(model_type="falcon", num_key_value_heads=None, multi_query=True)
    assert layout_of(falcon).kv_heads == 1
    assert layout_of({**falcon, "new_decoder_architecture": True, "num_kv_heads": 8}).kv_heads == 8


def test_a_head_dim_of_its_own_counts() -> None:
    assert layout_of(llama()).head_size == 128
    assert layout_of(llama(head_dim=64)).head_size == 64


def test_gemma_3_may_leave_out_what_its_class_knows() -> None:
    """The 4B's config.json names only a few fields."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}
    layout = layout_of({"model_type": "gemma3", "text_config": text})
    assert (layout.kv_heads, layout.head_size) == (4, 256)
    assert Counter(layout.windows) == {1024: 29, None: 5}


def test_windows_by_pattern_by_list_and_everywhere() -> None:
    by_pattern = layout_of(llama(model_type="cohere2", sliding_window=4096, sliding_window_pattern=4))
    by_list = layout_of(llama(sliding_window=4096, layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 8))
    assert by_pattern.windows == by_list.windows
    assert Counter(by_list.windows) == {4096: 24, None: 8}
    assert set(layout_of(llama(model_type="mistral", sliding_window=4096)).windows) == {4096}


def test_a_window_that_is_switched_off_does_not_count() -> None:
    assert set(published("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8").windows) == {None}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model_type": None}, "model_type"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": [8, 4]}, "num_key_value_heads"),
        ({"hidden_size": 4097}, "hidden_size"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types"),
        ({"layer_types": ["sliding_attention"] * 32}, "sliding_window"),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, "kv_lora_rank"),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512}, "qk_rope_head_dim"),
        ({"v_head_dim": 64}, "v_head_dim"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
        ({"linear_conv_kernel_dim": 4}, "linear_conv_kernel_dim"),
        ({"attention_chunk_size": 8192}, "attention_chunk_size"),
        ({"cross_attention_layers": [3, 8]}, "cross_attention_layers"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"num_kv_shared_layers": 20}, "num_kv_shared_layers"),
        ({"global_head_dim": 512}, "global_head_dim"),
        ({"attn_type_list": [0, 1] * 16}, "attn_type_list"),
    ],
)
def test_what_is_not_understood_is_said_by_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(UnknownLayout) as error:
        layout_of(llama(**change))
    assert error.value.field == field
    assert field in str(error.value)


def test_fields_that_change_nothing_are_no_obstacle() -> None:
    quiet = llama(attention_chunk_size=None, is_encoder_decoder=False, num_kv_shared_layers=0, attn_type_list=[1] * 32)
    assert layout_of(quiet) == layout_of(llama())


@pytest.mark.parametrize(
    ("scaling", "positions"),
    [
        (None, 131072),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 131072),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        ({"type": "linear", "factor": 2.0}, 262144),
    ],
)
def test_the_longest_context(scaling: dict[str, Any] | None, positions: int) -> None:
    assert layout_of(llama(rope_scaling=scaling)).positions == positions


def test_every_model_of_the_logs_is_understood() -> None:
    for config in configs().values():
        layout = layout_of(config)
        assert str(len(layout.windows)) in layout.heads_in_words

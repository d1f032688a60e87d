"""Bytes of weights from config.json, against what the repositories publish in model.safetensors.index.json (`total_size`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stoker.models.arithmetic import NotUnderstood, weight_bytes

CONFIGS = Path(__file__).resolve().parents[2] / "lab" / "models" / "configs"


def config(
    model_type: str, hidden: int, layers: int, heads: int, kv_heads: int, width: int, vocabulary: int, **more: object
) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": width,
        "vocab_size": vocabulary,
        **more,
    }


QWEN3 = {"head_dim": 128, "tie_word_embeddings": False, "attention_bias": False}
GEMMA2 = {"head_dim": 256, "attention_bias": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": None, "zero_point": True}
DEEPSEEK_LITE = {
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "q_lora_rank": None, "kv_lora_rank": 512,
    "n_routed_experts": 64, "n_shared_experts": 2, "moe_intermediate_size": 1408, "first_k_dense_replace": 1, "moe_layer_freq": 1,
}  # fmt: skip

#: Repository -> its dimensions and the published `total_size`, as public code and documents quote them from its files. The index of the
#: last one is quoted without the repository's name: quantised tensors of 4 bits in 9 files; its layers and its size tell what it is.
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "meta-llama/Llama-3.1-8B-Instruct": (config("llama", 4096, 32, 32, 8, 14336, 128256), 16_060_522_496),
    "meta-llama/Llama-3.1-70B-Instruct": (config("llama", 8192, 80, 64, 8, 28672, 128256), 141_107_412_992),
    "mistralai/Mistral-7B-Instruct-v0.2": (config("mistral", 4096, 32, 32, 8, 14336, 32000), 14_483_464_192),
    "Qwen/Qwen2.5-3B-Instruct": (
        config("qwen2", 2048, 36, 16, 2, 11008, 151936, tie_word_embeddings=True),
        6_171_877_376,
    ),
    "Qwen/Qwen2.5-7B-Instruct": (config("qwen2", 3584, 28, 28, 4, 18944, 152064), 15_231_233_024),
    "Qwen/Qwen2.5-14B-Instruct": (config("qwen2", 5120, 48, 40, 8, 13824, 152064), 29_540_067_328),
    "Qwen/Qwen2.5-32B-Instruct": (config("qwen2", 5120, 64, 40, 8, 27648, 152064), 65_527_752_704),
    "Qwen/Qwen3-4B": (
        config("qwen3", 2560, 36, 32, 8, 9728, 151936, head_dim=128, tie_word_embeddings=True),
        8_044_936_192,
    ),
    "Qwen/Qwen3-8B": (config("qwen3", 4096, 36, 32, 8, 12288, 151936, **QWEN3), 16_381_470_720),
    "Qwen/Qwen3-14B": (config("qwen3", 5120, 40, 40, 8, 17408, 151936, **QWEN3), 29_536_614_400),
    "Qwen/Qwen3-32B": (config("qwen3", 5120, 64, 64, 8, 25600, 151936, **QWEN3), 65_524_246_528),
    "Qwen/Qwen3-30B-A3B": (
        config("qwen3_moe", 2048, 48, 32, 4, 6144, 151936, moe_intermediate_size=768, num_experts=128, **QWEN3),
        61_064_245_248,
    ),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": (
        config("mixtral", 4096, 32, 32, 8, 14336, 32000, num_local_experts=8),
        93_405_585_408,
    ),
    "google/gemma-2-2b-it": (config("gemma2", 2304, 26, 8, 4, 9216, 256000, **GEMMA2), 5_228_683_776),
    "google/gemma-2-9b-it": (config("gemma2", 3584, 42, 16, 8, 14336, 256000, **GEMMA2), 18_483_411_968),
    "deepseek-ai/DeepSeek-V2-Lite": (
        config("deepseek_v2", 2048, 27, 16, 16, 10944, 102400, **DEEPSEEK_LITE),
        31_412_968_448,
    ),
    "Llama 3.1 70B, AWQ": (
        config("llama", 8192, 80, 64, 8, 28672, 128256, quantization_config=AWQ),
        39_767_785_472,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_come_out(name: str) -> None:
    given, total = PUBLISHED[name]
    assert weight_bytes(given) == total


def default(repository: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONFIGS / repository / "config.json").read_text())
    return found


def test_the_default_models_come_out() -> None:
    """Llama: shards of 4.97 GB and 764 MB. Qwen: worked out by hand from the same formula. bge-m3: pytorch_model.bin, 2 271 145 830 bytes."""
    assert weight_bytes(default("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4")) == pytest.approx(
        5.733e9, abs=1e6
    )
    assert weight_bytes(default("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8")) == pytest.approx(16.65e9, abs=1e7)
    assert weight_bytes(default("BAAI/bge-m3"), loaded_bytes=4) == pytest.approx(2_271_145_830, rel=1e-4)


def test_a_wider_type_doubles_what_is_not_quantised_and_nothing_else() -> None:
    plain, quantised = (
        config("llama", 4096, 32, 32, 8, 14336, 128256, **more) for more in ({}, {"quantization_config": AWQ})
    )
    assert weight_bytes(plain, 4) == 2 * weight_bytes(plain, 2)
    embeddings_and_norms = 2 * 128256 * 4096 + 65 * 4096
    assert weight_bytes(quantised, 4) - weight_bytes(quantised, 2) == 2 * embeddings_and_norms


def test_fp8_is_one_byte_a_weight_and_four_a_block() -> None:
    plain = config("llama", 4096, 32, 32, 8, 14336, 128256)
    blocks = weight_bytes({**plain, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
    matrices = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    assert blocks == weight_bytes(plain) - matrices + matrices // (128 * 128) * 4


def test_one_group_for_a_whole_column() -> None:
    plain = config("llama", 4096, 32, 32, 8, 14336, 128256)
    fine, coarse = (
        weight_bytes({**plain, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": size}})
        for size in (128, -1)
    )
    outputs_of_4096, outputs_of_14336 = 2 * 4096 + 2 * 1024 + 2 * 14336, 4096
    groups_saved = 32 * (outputs_of_4096 * (4096 // 128 - 1) + outputs_of_14336 * (14336 // 128 - 1))
    assert fine - coarse == groups_saved * 2 + groups_saved // 2


def test_a_text_model_in_a_wrapper_is_the_text_model() -> None:
    inner = config("gemma2", 2304, 26, 8, 4, 9216, 256000, **GEMMA2)
    assert weight_bytes({"model_type": "outer", "text_config": inner}) == weight_bytes(inner)


LLAMA = config("llama", 4096, 32, 32, 8, 14336, 128256)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "model_type ''"),
        ({"model_type": "mamba"}, "mamba"),
        ({"model_type": "llama"}, "num_hidden_layers"),
        ({**LLAMA, "vocab_size": "many"}, "vocab_size"),
        ({**LLAMA, "quantization_config": {"quant_method": "hqq"}}, "hqq"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "bits"),
        ({**LLAMA, "quantization_config": {**AWQ, "modules_to_not_convert": ["model.layers.0.mlp"]}}, "special choice"),
        ({"text_config": LLAMA, "vision_config": {}}, "sees"),
    ],
)
def test_what_is_not_understood_is_said(given: dict[str, Any], word: str) -> None:
    with pytest.raises(NotUnderstood, match=word) as raised:
        weight_bytes(given)
    assert "stoker models describe" in str(raised.value)

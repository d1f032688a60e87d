"""What a model keeps in the KV cache, read from its config.json as vLLM reads it.

Sources: vLLM 0.19.1, transformers_utils/model_arch_config_convertor.py (heads, head size, latent attention),
model_executor/layers/attention/attention.py and models/*.py (windows), config/model.py (context); transformers 5.23, models/gemma*/
and models/cohere2/ (what their config.json leaves out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Config = Mapping[str, object]

#: Models that only encode: every layer sees the whole input, nothing is kept between steps.
ENCODERS = {"bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert"}

#: Models whose cache holds one latent vector per token instead of keys and values (vLLM's is_deepseek_mla, without the ones that
#: have other kinds of layers besides).
LATENT = {
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "kimi_k2",
    "glm_moe_dsa",
    "glm4_moe_lite",
    "pangu_ultra_moe",
}

#: Models in which a plain `sliding_window` counts for every layer.
SLIDING_EVERYWHERE = {"mistral", "mixtral", "phi3", "starcoder2"}

#: Every how many layers one sees everything, where config.json has no `layer_types` and no pattern of its own.
PATTERN = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}

#: What a config.json of these models may leave out, since it equals the class's own defaults.
LEFT_OUT: Mapping[str, Mapping[str, int]] = {
    "gemma3_text": {
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
        "vocab_size": 262208,
    },
}

#: Fields (or their beginnings, with _ at the end) of layouts that are not computed here: state-space and linear layers, chunked and
#: cross attention, layers that differ in their heads or share a cache.
UNKNOWN = (
    "mamba_",
    "ssm_",
    "linear_",
    "attn_layer_",
    "conv_L_cache",
    "state_size",
    "layers_block_type",
    "block_types",
    "hybrid_override_pattern",
    "hybrid_layer_pattern",
    "full_attention_interval",
    "attn_type_list",
    "block_configs",
    "attn_config",
    "attention_chunk_size",
    "cross_attention_layers",
    "is_encoder_decoder",
    "num_kv_shared_layers",
    "global_head_dim",
    "swa_num_key_value_heads",
    "compress_ratios",
    "dense_attention_every_n_layers",
)


class UnknownLayout(ValueError):
    """A config.json that cannot be understood, by the field at fault."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"config.json, {field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class Layout:
    """What each layer keeps for a token."""

    kind: Literal["keys and values", "latent", "none"]
    #: One for each layer: how many tokens back it looks, None for all.
    windows: tuple[int | None, ...]
    #: Key-value heads of the whole model; 1 for a latent.
    kv_heads: int
    #: Elements of one head, or of the latent.
    head_size: int
    #: Bytes per token and layer that a sparse indexer keeps besides.
    indexer_bytes: int
    #: The model's own longest context, None where config.json does not say.
    positions: int | None
    #: Entries of the vocabulary, None where config.json does not say.
    vocabulary: int | None

    @property
    def heads_in_words(self) -> str:
        """For the plan's table."""
        if self.kind == "none":
            return "no KV cache"
        kept = "a latent" if self.kind == "latent" else f"{self.kv_heads} KV heads"
        sliding = sum(window is not None for window in self.windows)
        text = f"{len(self.windows)} layers with {kept} of {self.head_size}"
        return text + (f", {sliding} of them with a window of {max(w for w in self.windows if w)}" if sliding else "")


def layout_of(config: Config) -> Layout:
    """The layout of a model with this config.json. Raises UnknownLayout rather than to guess."""
    text = _text(config)
    kind = text.get("model_type", config.get("model_type"))
    if not isinstance(kind, str):
        raise UnknownLayout("model_type", "it is missing, so the kind of model is not known")
    text = {**LEFT_OUT.get(kind, {}), **text}
    if kind in ENCODERS:
        return Layout("none", (), 0, 0, 0, _positions(text, kind), _vocabulary(text))
    for name, value in text.items():
        strange = any(name == field or (field.endswith("_") and name.startswith(field)) for field in UNKNOWN)
        plain = value in (None, False, 0, [], {}) or (name == "attn_type_list" and _all_full(value))
        if strange and not plain:
            raise UnknownLayout(name, f"the cache of such a model ({kind}) is not computed here")
    layers = _number(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = _number(text, "num_attention_heads", "n_head", "n_heads")
    if text.get("kv_lora_rank") is not None:
        return _latent(text, kind, layers)
    size = _head_size(text, heads)
    if text.get("v_head_dim", size) not in (size, None):
        raise UnknownLayout("v_head_dim", "values of another size than the keys are not computed here")
    windows, kv_heads = _windows(text, kind, layers), _kv_heads(text, heads)
    return Layout("keys and values", windows, kv_heads, size, 0, _positions(text, kind), _vocabulary(text))


def attention_heads(config: Config) -> int | None:
    """Of the model's attention; None where config.json does not say."""
    text, names = _text(config), ("num_attention_heads", "n_head", "n_heads")
    return _number(text, *names) if _has(text, *names) else None


def _all_full(types: object) -> bool:
    """MiniMax says 1 for a layer with full attention, 0 for a linear one."""
    return isinstance(types, list) and all(one == 1 for one in types)


def _text(config: Config) -> Config:
    """The part about the language model, where a model has others too."""
    for name in ("text_config", "language_config", "llm_config"):
        inner = config.get(name)
        if isinstance(inner, Mapping):
            return inner
    return config


def _number(config: Config, *names: str) -> int:
    """The first of these fields that is there, a whole number from 1 on."""
    for name in names:
        value = config.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UnknownLayout(name, f"{value!r} is no whole number from 1 on")
            return value
    raise UnknownLayout(names[0], "it is missing")


def _has(config: Config, *names: str) -> bool:
    return any(config.get(name) is not None for name in names)


def _head_size(config: Config, heads: int) -> int:
    given = ("head_dim", "hidden_size_per_head", "kv_channels")
    if _has(config, *given):
        return _number(config, *given)
    hidden = _number(config, "hidden_size", "n_embd", "d_model")
    if hidden % heads:
        raise UnknownLayout("hidden_size", f"{hidden} is not divisible by {heads} heads, and there is no head_dim")
    return hidden // heads


def _kv_heads(config: Config, heads: int) -> int:
    if config.get("multi_query") is True and not config.get("new_decoder_architecture"):
        return 1
    given = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num")
    return _number(config, *given) if _has(config, *given) else heads


def _latent(config: Config, kind: str, layers: int) -> Layout:
    if kind not in LATENT:
        raise UnknownLayout("kv_lora_rank", f"whether vLLM keeps the latent of a {kind} model is not known")
    size = _number(config, "kv_lora_rank") + _number(config, "qk_rope_head_dim")
    indexer = 0
    if _has(config, "index_head_dim"):
        # One byte an element and a 4-byte scale for each 128 of them (vLLM 0.19.1, models/deepseek_v2.py).
        elements = _number(config, "index_head_dim")
        indexer = elements + elements // 128 * 4
    return Layout("latent", (None,) * layers, 1, size, indexer, _positions(config, kind), _vocabulary(config))


def _windows(config: Config, kind: str, layers: int) -> tuple[int | None, ...]:
    types = config.get("layer_types")
    window = config.get("sliding_window")
    if kind.startswith("qwen") and config.get("use_sliding_window") is False:
        window = None
    if types is not None:
        return _by_types(config, types, layers)
    if window in (None, 0):
        return (None,) * layers
    if _has(config, "sliding_window_pattern") or kind in PATTERN:
        every = _number(config, "sliding_window_pattern") if _has(config, "sliding_window_pattern") else PATTERN[kind]
        size = _number(config, "sliding_window")
        return tuple(None if (layer + 1) % every == 0 else size for layer in range(layers))
    if kind in SLIDING_EVERYWHERE:
        return (_number(config, "sliding_window"),) * layers
    raise UnknownLayout("sliding_window", f"which layers of a {kind} model it counts for is not known")


def _by_types(config: Config, types: object, layers: int) -> tuple[int | None, ...]:
    if not isinstance(types, list) or len(types) != layers:
        raise UnknownLayout("layer_types", f"it does not name {layers} layers")
    windows: list[int | None] = []
    for name in types:
        if name not in ("full_attention", "sliding_attention"):
            raise UnknownLayout("layer_types", f"the cache of {name!r} is not computed here")
        windows.append(None if name == "full_attention" else _number(config, "sliding_window"))
    return tuple(windows)


def _positions(config: Config, kind: str) -> int | None:
    """The longest context vLLM derives: with rope scaling the product, except where the number stands for it already."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
    found = [value for name in names if isinstance(value := config.get(name), int) and value > 0]
    if not found:
        return None
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(scaling, Mapping) or kind.startswith("gemma3"):
        return min(found)
    rope = scaling.get("rope_type", scaling.get("type"))
    factor = scaling.get("factor")
    if rope in ("su", "longrope", "llama3", "default", "mrope") or not isinstance(factor, int | float):
        return min(found)
    if not 0 < factor < math.inf:
        raise UnknownLayout("rope_scaling", f"a factor of {factor} is none")
    original = scaling.get("original_max_position_embeddings")
    start = original if rope == "yarn" and isinstance(original, int) else min(found)
    return int(start * factor)


def _vocabulary(config: Config) -> int | None:
    return _number(config, "vocab_size") if _has(config, "vocab_size") else None

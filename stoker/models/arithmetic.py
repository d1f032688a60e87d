"""Bytes of weights computed from config.json, for models of which not even the file sizes are known.

The shapes are those of the modelling files of transformers (``modeling_llama.py`` and its neighbours); what is not understood is refused,
never guessed. Against published sizes: tests/unit/test_models_arithmetic.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: Parts that GPTQ, AWQ and fp8 checkpoints leave as they are; naming them as exceptions changes nothing.
_NEVER_QUANTISED = {"lm_head", "gate", "router", "shared_expert_gate", "embed_tokens"}


class NotUnderstood(Exception):
    """The arithmetic does not cover this model; the sentence ends with what to do."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}, which the arithmetic does not cover: write a card with the files' sizes by `stoker models describe`"
        )


@dataclass(frozen=True)
class Linear:
    """Weight matrices of one shape."""

    inputs: int
    outputs: int
    bias: bool = False
    count: int = 1


@dataclass(frozen=True)
class Shapes:
    """Everything that a model is made of."""

    linears: tuple[Linear, ...]  #: what a quantised checkpoint quantises
    others: int  #: values of embeddings, norms, routers and the output layer


class _Config:
    """config.json with errors for people."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def number(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise NotUnderstood(f"config.json has no number {name!r}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.values.get(name, default))


def weight_bytes(config: Mapping[str, Any], loaded_bytes: int = 2) -> int:
    """Bytes of a model's weights. ``loaded_bytes``: of one value that is not quantised. Raises NotUnderstood."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        if any(name in config for name in ("vision_config", "audio_config")):
            raise NotUnderstood("the model sees or hears beside reading")
        config = {**text, **{key: config[key] for key in ("quantization_config",) if key in config}}
    kind = str(config.get("model_type", ""))
    if kind not in _SHAPES:
        raise NotUnderstood(f"config.json says model_type {kind!r}")
    shapes = _SHAPES[kind](_Config(config))
    size_of = _quantisation(config.get("quantization_config"), loaded_bytes)
    biases = sum(linear.count * linear.outputs for linear in shapes.linears if linear.bias)
    return sum(linear.count * size_of(linear) for linear in shapes.linears) + (shapes.others + biases) * loaded_bytes


def _quantisation(given: Any, loaded_bytes: int) -> Callable[[Linear], int]:
    """Linear -> bytes of one such matrix without its bias."""
    if given is None:
        return lambda linear: linear.inputs * linear.outputs * loaded_bytes
    if not isinstance(given, Mapping):
        raise NotUnderstood("config.json has a quantization_config of another form")
    quantisation = _Config(given)
    method = str(given.get("quant_method", ""))
    left_out = _names(given.get("modules_to_not_convert") or [])
    special = [name for name in left_out if name.rpartition(".")[2] not in _NEVER_QUANTISED]
    if special or given.get("modules_in_block_to_quantize") or given.get("dynamic") or given.get("lm_head"):
        raise NotUnderstood("the checkpoint is quantised in a special choice of its parts")
    if method in ("gptq", "awq"):
        return _grouped(quantisation, g_idx=method == "gptq")
    if method == "fp8":
        return _fp8(given.get("weight_block_size"))
    raise NotUnderstood(f"the checkpoint is quantised by {method or 'an unnamed method'!r}")


def _names(given: object) -> list[str]:
    if not isinstance(given, list):
        raise NotUnderstood("config.json has no list 'modules_to_not_convert'")
    return [str(name) for name in given]


def _grouped(quantisation: _Config, g_idx: bool) -> Callable[[Linear], int]:
    """GPTQ and AWQ: packed weights; for each group of inputs scales of 2 bytes and packed zero points; GPTQ: 4 bytes for each input.

    The formula of AutoGPTQ's and AutoAWQ's ``QuantLinear``.
    """
    bits = quantisation.number("bits", quantisation.values.get("w_bit"))
    group = quantisation.values.get("group_size", quantisation.values.get("q_group_size", 128))
    if not isinstance(group, int) or (group < 1 and group != -1):
        raise NotUnderstood(f"config.json has the group_size {group!r}")

    def size_of(linear: Linear) -> int:
        groups = 1 if group == -1 else -(-linear.inputs // group)
        weights = linear.inputs * linear.outputs * bits // 8
        zeros = groups * linear.outputs * bits // 8
        return weights + zeros + groups * linear.outputs * 2 + (linear.inputs * 4 if g_idx else 0)

    return size_of


def _fp8(block: Any) -> Callable[[Linear], int]:
    """8 bits a weight, and float32 scales: one for each block, or one for the matrix."""
    if block is None:
        return lambda linear: linear.inputs * linear.outputs + 4
    if not (isinstance(block, list) and len(block) == 2 and all(isinstance(side, int) and side > 0 for side in block)):
        raise NotUnderstood(f"config.json has the weight_block_size {block!r}")
    rows, columns = block
    return lambda linear: linear.inputs * linear.outputs + 4 * -(-linear.outputs // rows) * -(-linear.inputs // columns)


def _dense(
    qkv_bias: bool | str = "attention_bias",
    o_bias: str = "",
    qk_norm: bool = False,
    norms: int = 2,
    tied: bool = False,
) -> Callable[[_Config], Shapes]:
    """A decoder whose layers are attention and one gated feed-forward part."""

    def shapes(config: _Config) -> Shapes:
        layers = config.number("num_hidden_layers")
        linears = [
            *_attention(config, qkv_bias, o_bias, layers),
            *_gated(config, config.number("intermediate_size"), layers),
        ]
        return Shapes(tuple(linears), _around(config, layers, norms, qk_norm, tied))

    return shapes


def _attention(config: _Config, qkv_bias: bool | str, o_bias: str, layers: int) -> Iterator[Linear]:
    hidden, heads = config.number("hidden_size"), config.number("num_attention_heads")
    keys = config.number("num_key_value_heads", heads)
    bias = config.flag(qkv_bias) if isinstance(qkv_bias, str) else qkv_bias
    width = _head(config)
    yield Linear(hidden, heads * width, bias, layers)
    yield Linear(hidden, keys * width, bias, 2 * layers)
    yield Linear(heads * width, hidden, bool(o_bias) and config.flag(o_bias), layers)


def _head(config: _Config) -> int:
    return config.number("head_dim", config.number("hidden_size") // max(1, config.number("num_attention_heads")))


def _gated(config: _Config, width: int, count: int) -> Iterator[Linear]:
    hidden, bias = config.number("hidden_size"), config.flag("mlp_bias")
    yield Linear(hidden, width, bias, 2 * count)
    yield Linear(width, hidden, bias, count)


def _around(config: _Config, layers: int, norms: int, qk_norm: bool, tied: bool) -> int:
    """Embeddings, the output layer where it is not the embeddings again, and norms."""
    hidden, vocabulary = config.number("hidden_size"), config.number("vocab_size")
    copies = 1 if config.flag("tie_word_embeddings", tied) else 2
    of_layer = norms * hidden + (2 * _head(config) if qk_norm else 0)
    return copies * vocabulary * hidden + layers * of_layer + hidden


def _mixtral(config: _Config) -> Shapes:
    layers, experts = config.number("num_hidden_layers"), config.number("num_local_experts")
    linears = [
        *_attention(config, False, "", layers),
        *_gated(config, config.number("intermediate_size"), layers * experts),
    ]
    routers = layers * experts * config.number("hidden_size")
    return Shapes(tuple(linears), _around(config, layers, 2, False, False) + routers)


def _qwen3_moe(config: _Config) -> Shapes:
    layers, experts = config.number("num_hidden_layers"), config.number("num_experts")
    step, dense = config.number("decoder_sparse_step", 1), config.values.get("mlp_only_layers") or []
    sparse = sum(layer not in dense and experts > 0 and (layer + 1) % step == 0 for layer in range(layers))
    linears = [
        *_attention(config, "attention_bias", "attention_bias", layers),
        *_gated(config, config.number("moe_intermediate_size"), sparse * experts),
        *_gated(config, config.number("intermediate_size"), layers - sparse),
    ]
    routers = sparse * experts * config.number("hidden_size")
    return Shapes(tuple(linears), _around(config, layers, 2, True, False) + routers)


def _deepseek(config: _Config) -> Shapes:
    """Multi-head latent attention, some dense layers, then experts. Layers for drafts (MTP) are not loaded, so not counted."""
    layers, heads, hidden = (
        config.number(name) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    plain, rope, value = (config.number(name) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    q_rank, kv_rank = config.number("q_lora_rank", 0), config.number("kv_lora_rank")
    queries = heads * (plain + rope)
    experts, shared = config.number("n_routed_experts", 0), config.number("n_shared_experts", 0)
    width = config.number("moe_intermediate_size", 0)
    first, step = config.number("first_k_dense_replace", 0), config.number("moe_layer_freq", 1)
    sparse = sum(experts > 0 and layer >= first and layer % step == 0 for layer in range(layers))
    linears = [
        *(
            [Linear(hidden, q_rank, count=layers), Linear(q_rank, queries, count=layers)]
            if q_rank
            else [Linear(hidden, queries, count=layers)]
        ),
        Linear(hidden, kv_rank + rope, count=layers),
        Linear(kv_rank, heads * (plain + value), count=layers),
        Linear(heads * value, hidden, count=layers),
        *_gated(config, config.number("intermediate_size"), layers - sparse),
        *_gated(config, width, sparse * experts),
        *_gated(config, width * shared, sparse if shared else 0),
    ]
    others = _around(config, layers, 2, False, False) + layers * (q_rank + kv_rank) + sparse * experts * hidden
    return Shapes(tuple(linears), others)


def _encoder(config: _Config) -> Shapes:
    """BERT and its relatives: every part with biases, no output layer, a pooler."""
    layers, hidden, width = (config.number(name) for name in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    rows = config.number("vocab_size") + config.number("max_position_embeddings") + config.number("type_vocab_size", 0)
    linears = (
        Linear(hidden, hidden, True, 4 * layers + 1),
        Linear(hidden, width, True, layers),
        Linear(width, hidden, True, layers),
    )
    return Shapes(linears, rows * hidden + (2 * layers + 1) * 2 * hidden)


#: ``model_type`` of config.json -> its shapes.
_SHAPES: Mapping[str, Callable[[_Config], Shapes]] = {
    "llama": _dense(o_bias="attention_bias"),
    "mistral": _dense(qkv_bias=False),
    "qwen2": _dense(qkv_bias=True),
    "qwen3": _dense(o_bias="attention_bias", qk_norm=True),
    "gemma": _dense(o_bias="attention_bias", tied=True),
    "gemma2": _dense(o_bias="attention_bias", norms=4, tied=True),
    "gemma3_text": _dense(o_bias="attention_bias", norms=4, qk_norm=True, tied=True),
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "bert": _encoder,
    "roberta": _encoder,
    "xlm-roberta": _encoder,
}

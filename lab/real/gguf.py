"""A tiny Llama in Hugging Face's format -> one GGUF file that llama.cpp serves; with the standard library only.

Meant for models of about a million weights: everything is held in memory, and a million weights take about a
second. Only what such a model needs is known: plain rotary embedding, a byte-level BPE tokenizer of GPT-2's kind.
Anything else is refused, because a GGUF that is only nearly right loads without an error and answers nonsense.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab.internet.shell import BuildError

Scalar = str | int | float | bool
Value = Scalar | Sequence[str] | Sequence[int]

ALIGNMENT = 32
"""Bytes; the tensors' data begin at multiples of it (GGUF's default)."""
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
"""Types of values in the metadata, as numbered by the GGUF format."""
F32, F16 = 0, 1
"""Types of tensors; the same numbers name the type of the whole file."""
NORMAL, CONTROL = 1, 3
"""Types of tokens."""

BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""A layer's tensors: GGUF's name -> Hugging Face's name."""


@dataclass(frozen=True)
class Tensor:
    """Values in rows: `shape` as Hugging Face has it (rows first), `data` as little-endian 32-bit floats."""

    shape: tuple[int, ...]
    data: bytes


def convert(model: Path, target: Path, precision: Literal["f16", "f32"] = "f16") -> Path:
    """Write the model of the folder `model` to the file `target`; a file that exists is replaced at once, not
    halfway. Matrices get `precision`, vectors stay 32-bit.

    Raises:
        BuildError: a file of the model is missing or broken, or the model is of a kind that is not known here.
    """
    config = _json(model / "config.json")
    tokenizer = _json(model / "tokenizer.json")
    template = model / "chat_template.jinja"
    _refuse_unknown(model, config, tokenizer)
    kind = F16 if precision == "f16" else F32
    try:
        metadata = {
            **_architecture(config, model.name, kind),
            **_vocabulary(config, tokenizer),
            **({"tokenizer.chat_template": template.read_text()} if template.exists() else {}),
        }
        tensors = _tensors(config, _safetensors(model / "model.safetensors"))
        content = _file(metadata, tensors, kind)
    except (KeyError, IndexError, ValueError, TypeError, OverflowError, struct.error) as error:
        problem = f"{type(error).__name__}: {error}"
        raise BuildError(f"{model} cannot be made a GGUF file: {problem}; make the model again") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_bytes(content)
    return part.replace(target)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BuildError(f"{file} cannot be read as JSON: {error}; make the model again") from error
    if not isinstance(found, dict):
        raise BuildError(f"{file} holds no JSON object; make the model again")
    return found


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the rotary embedding is described: newer writers have `rope_parameters`, older ones plain keys."""
    found: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found


def _refuse_unknown(model: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    rope = _rope(config).get("rope_type", "default")
    split = (tokenizer.get("pre_tokenizer") or {}).get("type")
    kinds = (
        ("model_type", config.get("model_type"), "llama"),
        ("rope_type", rope, "default"),
        ("attention_bias", bool(config.get("attention_bias")), False),
        ("tokenizer model", (tokenizer.get("model") or {}).get("type"), "BPE"),
        ("pre_tokenizer", split, "ByteLevel"),
    )
    for what, found, known in kinds:
        if found != known:
            raise BuildError(f"{model}: {what} is {found!r}, and only {known!r} can be made a GGUF file here")


def _architecture(config: Mapping[str, Any], name: str, kind: int) -> dict[str, Value]:
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or config["hidden_size"] // heads)
    theta = _rope(config).get("rope_theta", config.get("rope_theta", 10000.0))
    return {
        "general.architecture": "llama",
        "general.name": name,
        "general.file_type": kind,
        "llama.vocab_size": int(config["vocab_size"]),
        "llama.context_length": int(config["max_position_embeddings"]),
        "llama.embedding_length": int(config["hidden_size"]),
        "llama.block_count": int(config["num_hidden_layers"]),
        "llama.feed_forward_length": int(config["intermediate_size"]),
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": int(config.get("num_key_value_heads", heads)),
        "llama.attention.key_length": head,
        "llama.attention.value_length": head,
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.dimension_count": head,
        "llama.rope.freq_base": float(theta),
    }


def _vocabulary(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> dict[str, Value]:
    added = {token["content"]: int(token["id"]) for token in tokenizer.get("added_tokens", ())}
    numbered = {number: token for token, number in {**tokenizer["model"]["vocab"], **added}.items()}
    size = int(config["vocab_size"])
    if sorted(numbered) != list(range(size)):
        raise ValueError(f"tokenizer.json has {len(numbered)} tokens, config.json says {size}")
    tokens = [numbered[number] for number in range(size)]
    special = {token["content"] for token in tokenizer.get("added_tokens", ()) if token.get("special")}
    found: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in special else NORMAL for token in tokens],
        # A merge is "a b" in older files, ["a", "b"] in newer ones.
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]],
        # The chat template writes the first token itself.
        "tokenizer.ggml.add_bos_token": False,
    }
    names = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    for theirs, ours in names.items():
        if isinstance(config.get(theirs), int):
            found[f"tokenizer.ggml.{ours}"] = int(config[theirs])
    return found


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise BuildError(f"{file} cannot be read: {error}; make the model again") from error
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    found: dict[str, Tensor] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = Tensor(tuple(entry["shape"]), _float32(raw[begin:end], entry["dtype"]))
    return found


def _float32(data: bytes, dtype: str) -> bytes:
    if dtype == "F32":
        return data
    if dtype == "F16":
        count = len(data) // 2
        return struct.pack(f"<{count}f", *struct.unpack(f"<{count}e", data))
    if dtype == "BF16":
        # The upper half of a 32-bit float, so its two bytes go to the upper two of four.
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        return bytes(wide)
    raise ValueError(f"weights of type {dtype} are not known, only F32, F16, BF16")


def _tensors(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    heads = int(config["num_attention_heads"])
    turned = {"attn_q": heads, "attn_k": int(config.get("num_key_value_heads", heads))}
    found = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
        "output.weight": weights.get("lm_head.weight", weights["model.embed_tokens.weight"]),
    }
    for layer in range(int(config["num_hidden_layers"])):
        for ours, theirs in BLOCK.items():
            tensor = weights[f"model.layers.{layer}.{theirs}.weight"]
            found[f"blk.{layer}.{ours}.weight"] = _turn(tensor, turned[ours]) if ours in turned else tensor
    return found


def _turn(tensor: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection in llama.cpp's order: it rotates neighbours, Hugging Face the two halves
    of a head."""
    rows, columns = tensor.shape
    half = rows // heads // 2
    order = ((head * 2 + part) * half + row for head in range(heads) for row in range(half) for part in (0, 1))
    size = columns * 4
    return Tensor(tensor.shape, b"".join(tensor.data[row * size : (row + 1) * size] for row in order))


def _file(metadata: Mapping[str, Value], tensors: Mapping[str, Tensor], kind: int) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(_string(key) + _value(value) for key, value in metadata.items())
    data = bytearray()
    for name, tensor in tensors.items():
        # Vectors are norms: llama.cpp wants them in 32 bits.
        stored = kind if len(tensor.shape) > 1 else F32
        # GGUF lists the fastest-running dimension first.
        sizes = tuple(reversed(tensor.shape))
        head += _string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, stored, len(data))
        data += _padded(_float16(tensor.data) if stored == F16 else tensor.data)
    return _padded(head) + bytes(data)


def _float16(data: bytes) -> bytes:
    count = len(data) // 4
    return struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", data))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Value) -> bytes:
    # bool first: it is an int for Python.
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    return _array(value)


def _array(values: Iterable[str | int]) -> bytes:
    items = list(values)
    if all(isinstance(item, str) for item in items):
        return struct.pack("<IIQ", ARRAY, STRING, len(items)) + b"".join(_string(str(item)) for item in items)
    return struct.pack(f"<IIQ{len(items)}i", ARRAY, INT32, len(items), *items)

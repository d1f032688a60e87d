"""Weight files that are small and valid: safetensors with the real tensor names, torch archives, a GGUF header."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

LINEAR = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
GPTQ_PARTS = {"qweight": "I32", "qzeros": "I32", "scales": "F16", "g_idx": "I32"}
BYTES = {"I32": 4, "F16": 2, "BF16": 2, "F32": 4}
ELEMENTS = 8
"""Values in each stand-in tensor; the real shapes would make gigabytes."""
LAB_BYTES = "lab.size_bytes"
"""Metadata of a GGUF file: how many bytes the real one has."""
Value = str | int | float | bool
FIXED_TIME = (2026, 1, 1, 0, 0, 0)


def tensor_names(layers: int, kind: str, tied: bool) -> dict[str, str]:
    """Tensor name -> data type of a decoder model; `kind` is gptq or plain."""
    plain = "F16" if kind == "gptq" else "BF16"
    found = {"model.embed_tokens.weight": plain}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        found[f"{prefix}.input_layernorm.weight"] = plain
        found[f"{prefix}.post_attention_layernorm.weight"] = plain
        for linear in LINEAR:
            if kind == "gptq":
                found |= {f"{prefix}.{linear}.{part}": dtype for part, dtype in GPTQ_PARTS.items()}
            else:
                found[f"{prefix}.{linear}.weight"] = plain
    found["model.norm.weight"] = plain
    return found if tied else {**found, "lm_head.weight": plain}


def bert_tensor_names(layers: int) -> dict[str, str]:
    """Tensor name -> data type of an encoder: transformers' BertModel, whose published files are 32-bit."""
    dense = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
    dense += ["intermediate.dense", "output.dense", "attention.output.LayerNorm", "output.LayerNorm"]
    found = [
        f"embeddings.{name}.weight" for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
    ]
    found += [f"embeddings.LayerNorm.{part}" for part in ("weight", "bias")]
    found += [
        f"encoder.layer.{layer}.{name}.{part}"
        for layer in range(layers)
        for name in dense
        for part in ("weight", "bias")
    ]
    return dict.fromkeys([*found, "pooler.dense.weight", "pooler.dense.bias"], "F32")


def safetensors(tensors: Mapping[str, str]) -> bytes:
    """A safetensors file: 8 bytes of header length, the header as JSON, zeros for the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dtype in tensors.items():
        end = offset + ELEMENTS * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": [ELEMENTS], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def shard(tensors: Mapping[str, str], count: int) -> dict[str, bytes]:
    """File name -> content of the weights in `count` files, and of the index that says which tensor lies where."""
    names = list(tensors)
    files: dict[str, bytes] = {}
    where: dict[str, str] = {}
    for number in range(count):
        part = names[len(names) * number // count : len(names) * (number + 1) // count]
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        files[file] = safetensors({name: tensors[name] for name in part})
        where |= dict.fromkeys(part, file)
    total = sum(ELEMENTS * BYTES[dtype] for dtype in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    return {**files, "model.safetensors.index.json": json.dumps(index, indent=2).encode() + b"\n"}


def torch_archive(name: str) -> bytes:
    """A file as torch.save writes it: a zip with a pickle; this one holds an empty dictionary."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, content in (("data.pkl", b"\x80\x02}q\x00."), ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(f"{name}/{member}", FIXED_TIME), content)
    return packed.getvalue()


def gguf(metadata: Mapping[str, Value]) -> bytes:
    """A GGUF file, version 3, with metadata and no tensors, padded to 64 KiB."""
    body = struct.pack("<4sIQQ", b"GGUF", 3, 0, len(metadata))
    for key, value in metadata.items():
        body += struct.pack("<Q", len(key)) + key.encode() + _gguf_value(value)
    return body.ljust(64 * 1024, b"\0")


def _gguf_value(value: Value) -> bytes:
    """Type and value, as the format numbers the types: 4 a 32-bit number, 6 a 32-bit float, 7 a truth, 8 a text, 10 a 64-bit number."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value) if value < 1 << 32 else struct.pack("<IQ", 10, value)
    return struct.pack("<IQ", 8, len(value.encode())) + value.encode()

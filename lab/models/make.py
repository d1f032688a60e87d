"""Write the lab's models: `python3 lab/models/make.py OUT`.

OUT/hub/<organisation>/<name>/<files> are the hub's repositories; OUT/ollama/v2/library/<name>/ is what Ollama's library
offers, as manifests and blobs. The same input makes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from lab.models import weights  # noqa: E402  (found by the line above: this file is run by its path)

NOTE = "Simulated: the lab's stand-in for the real weights. It has the real names and dimensions and no content."
CHAT_TEMPLATES = {
    "llama3": "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}
END_TOKENS = {"llama3": "<|eot_id|>", "chatml": "<|im_end|>", "": "</s>"}

MODEL_LAYER, LICENSE_LAYER, PARAMS_LAYER = (
    f"application/vnd.ollama.image.{kind}" for kind in ("model", "license", "params")
)


@dataclass(frozen=True)
class LibraryModel:
    """A model of the Ollama library: what its manifest, its GGUF file and its own parameters (`settings`) say.

    `parameters` is how many weights it has, `size_label` the same as its configuration prints it; `metadata` has the architecture's keys.
    """

    name: str
    tags: tuple[str, ...]
    architecture: str
    real_bytes: int
    parameters: int
    size_label: str
    metadata: dict[str, weights.Value]
    license: str
    settings: dict[str, int] = field(default_factory=dict)


LIBRARY = (
    # F16, 566.70 million parameters, 1.2 GB (seen 2026-08, Ollama 0.32).
    LibraryModel(
        "bge-m3",
        ("latest", "567m"),
        "bert",
        1_157_671_200,
        566_703_104,
        "566.70M",
        {
            "context_length": 8192,
            "embedding_length": 1024,
            "block_count": 24,
            "attention.head_count": 16,
            "attention.causal": False,
        },
        "MIT",
    ),
    # Manifest 0a109f422b47: public projects keep its layers and sizes, and what `POST /api/show` says of it; llama.cpp prints the same
    # metadata (ollama#10811). Its own num_ctx is more than the file's context: Ollama takes 2048.
    LibraryModel(
        "nomic-embed-text",
        ("latest", "v1.5"),
        "nomic-bert",
        274_290_656,
        136_727_040,
        "137M",
        {
            "context_length": 2048,
            "embedding_length": 768,
            "block_count": 12,
            "feed_forward_length": 3072,
            "attention.head_count": 12,
            "attention.layer_norm_epsilon": 1e-12,
            "attention.causal": False,
            "pooling_type": 1,
            "rope.freq_base": 1000.0,
        },
        "Apache 2.0",
        {"num_ctx": 8192},
    ),
)


def tokenizer(end: str) -> dict[str, Any]:
    """A valid byte-level tokenizer.json whose vocabulary is the 256 bytes."""
    # GPT-2's table: printable bytes stand for themselves, the others for characters from 256 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    added = {"id": 256, "content": end, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**added, "special": True}],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": {letters[byte]: byte for byte in range(256)}, "merges": []},
    }


def repository_files(model: dict[str, Any]) -> dict[str, bytes]:
    """Path in the repository -> content."""
    configs = HERE / "configs" / model["repository"]
    files = {str(file.relative_to(configs)): file.read_bytes() for file in sorted(configs.rglob("*.json"))}
    simulated = f"{NOTE}\nThe real repository is {model['repository']}.\n".encode()
    files |= dict.fromkeys([*model["documents"], *model.get("other_files", []), ".gitattributes"], simulated)
    sizes = {"note": NOTE, "weights_gib": model["weights_gib"], "other_gib": model["other_gib"]}
    files["lab-weights.json"] = _json(sizes)
    if model["tensors"] == "gguf":
        return files | gguf_files(model)
    config = json.loads(files["config.json"])
    end = model.get("end", END_TOKENS[model["chat"]])
    tokenizer_config = {"eos_token": end, "model_max_length": config["max_position_embeddings"]}
    if model["chat"]:
        tokenizer_config["chat_template"] = CHAT_TEMPLATES[model["chat"]]
    texts = {
        "tokenizer.json": tokenizer(end),
        "tokenizer_config.json": tokenizer_config,
        "special_tokens_map.json": {"eos_token": end},
    }
    files |= {name: _json(value) for name, value in texts.items()}
    if model["tensors"] == "bert":
        files["model.safetensors"] = weights.safetensors(weights.bert_tensor_names(config["num_hidden_layers"]))
    if model["shards"]:
        names = weights.tensor_names(config["num_hidden_layers"], model["tensors"], config["tie_word_embeddings"])
        files |= weights.shard(names, model["shards"])
    return files | {name: weights.torch_archive(name.partition(".")[0]) for name in model.get("torch_files", [])}


def gguf_files(model: dict[str, Any]) -> dict[str, bytes]:
    """The GGUF files of a repository. Each carries the size of the real one: a deploy fetches one file and no note beside it."""
    config = json.loads((HERE / "configs" / model["config"] / "config.json").read_text())
    kind = config["model_type"]
    # Keys and their order as llama.cpp's converter writes them for Qwen3; a quantisation adds the last two.
    metadata: dict[str, weights.Value] = {
        "general.architecture": kind,
        "general.type": "model",
        "general.name": model["config"].partition("/")[2].replace("-", " "),
        "general.description": NOTE,
        f"{kind}.block_count": config["num_hidden_layers"],
        f"{kind}.context_length": config["max_position_embeddings"],
        f"{kind}.embedding_length": config["hidden_size"],
        f"{kind}.feed_forward_length": config["intermediate_size"],
        f"{kind}.attention.head_count": config["num_attention_heads"],
        f"{kind}.attention.head_count_kv": config["num_key_value_heads"],
        f"{kind}.rope.freq_base": float(config["rope_theta"]),
        f"{kind}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        f"{kind}.attention.key_length": config["head_dim"],
        f"{kind}.attention.value_length": config["head_dim"],
        f"{kind}.vocab_size": config["vocab_size"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.chat_template": CHAT_TEMPLATES[model["chat"]],
    }
    quantised: dict[str, weights.Value] = {"general.quantization_version": 2}
    return {
        file["name"]: weights.gguf(
            {**metadata, **quantised, "general.file_type": file["file_type"], weights.LAB_BYTES: file["bytes"]}
        )
        for file in model["gguf_files"]
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def write_hub(out: Path) -> None:
    """All repositories of models.toml below `out`."""
    for model in tomllib.loads((HERE / "models.toml").read_text())["model"]:
        for name, content in repository_files(model).items():
            file = out / model["repository"] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def write_ollama(out: Path) -> None:
    """The models of LIBRARY in the layout of Ollama's library: a manifest for each tag, blobs by digest."""
    for model in LIBRARY:
        write_library_model(out, model)


def write_library_model(out: Path, model: LibraryModel) -> None:
    """One model of the library. The configuration blob carries what the double has to know of the real one (`lab`)."""
    config = {
        "model_format": "gguf",
        "model_family": model.architecture,
        "model_families": [model.architecture],
        "model_type": model.size_label,
        "file_type": "F16",
        "architecture": "amd64",
        "os": "linux",
        "lab": {
            "note": NOTE,
            "license": model.license,
            "size_bytes": model.real_bytes,
            "parameter_count": model.parameters,
            **model.metadata,
        },
    }
    metadata: dict[str, weights.Value] = {
        "general.architecture": model.architecture,
        "general.name": model.name,
        "general.description": NOTE,
        **{f"{model.architecture}.{key}": value for key, value in model.metadata.items()},
    }
    blobs = {
        "application/vnd.docker.container.image.v1+json": json.dumps(config).encode(),
        MODEL_LAYER: weights.gguf(metadata),
        LICENSE_LAYER: f"{NOTE}\nThe real model's licence is {model.license}.\n".encode(),
    }
    if model.settings:
        blobs[PARAMS_LAYER] = json.dumps(model.settings).encode()
    folder = out / "v2/library" / model.name
    (folder / "blobs").mkdir(parents=True)
    (folder / "manifests").mkdir()
    described = []
    for media_type, content in blobs.items():
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        (folder / "blobs" / digest).write_bytes(content)
        described.append({"mediaType": media_type, "digest": digest, "size": len(content)})
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": described[0],
        "layers": described[1:],
    }
    for tag in model.tags:
        (folder / "manifests" / tag).write_text(json.dumps(manifest))


def main(arguments: list[str]) -> int:
    """Write everything below the one argument; 2 when it is missing."""
    if len(arguments) != 1:
        print((__doc__ or "").splitlines()[0], file=sys.stderr)
        return 2
    out = Path(arguments[0])
    write_hub(out / "hub")
    write_ollama(out / "ollama")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

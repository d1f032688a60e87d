"""Write the lab's models: `python3 lab/models/make.py OUT`.

OUT/hub/<organisation>/<name>/<files> are the hub's repositories; OUT/ollama/v2/library/<name>/ is what Ollama's library
offers, as manifests and blobs. The same input makes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
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

# bge-m3 as the Ollama library has it: F16, 566.70 million parameters, 1.2 GB (seen 2026-08, Ollama 0.32).
OLLAMA_TAGS = ("latest", "567m")
OLLAMA_REAL_BYTES = 1_157_671_200
OLLAMA_METADATA: dict[str, str | int] = {
    "general.architecture": "bert",
    "general.name": "bge-m3",
    "general.description": NOTE,
    "bert.context_length": 8192,
    "bert.embedding_length": 1024,
    "bert.block_count": 24,
    "bert.attention.head_count": 16,
}


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
    config = json.loads(files["config.json"])
    end = END_TOKENS[model["chat"]]
    tokenizer_config = {"eos_token": end, "model_max_length": config["max_position_embeddings"]}
    if model["chat"]:
        tokenizer_config["chat_template"] = CHAT_TEMPLATES[model["chat"]]
    texts = {
        "tokenizer.json": tokenizer(end),
        "tokenizer_config.json": tokenizer_config,
        "special_tokens_map.json": {"eos_token": end},
        "lab-weights.json": {"note": NOTE, "weights_gib": model["weights_gib"], "other_gib": model["other_gib"]},
    }
    files |= {name: json.dumps(value, indent=2).encode() + b"\n" for name, value in texts.items()}
    simulated = f"{NOTE}\nThe real repository is {model['repository']}.\n".encode()
    files |= dict.fromkeys([*model["documents"], *model.get("other_files", []), ".gitattributes"], simulated)
    if model["shards"]:
        names = weights.tensor_names(config["num_hidden_layers"], model["tensors"], config["tie_word_embeddings"])
        files |= weights.shard(names, model["shards"])
    return files | {name: weights.torch_archive(name.partition(".")[0]) for name in model.get("torch_files", [])}


def write_hub(out: Path) -> None:
    """All repositories of models.toml below `out`."""
    for model in tomllib.loads((HERE / "models.toml").read_text())["model"]:
        for name, content in repository_files(model).items():
            file = out / model["repository"] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def write_ollama(out: Path) -> None:
    """bge-m3 in the layout of Ollama's library: a manifest for each tag, blobs by digest.

    The configuration blob carries the real weights' size for the double (`lab`).
    """
    config = {
        "model_format": "gguf",
        "model_family": "bert",
        "model_families": ["bert"],
        "model_type": "566.70M",
        "file_type": "F16",
        "architecture": "amd64",
        "os": "linux",
        "lab": {"note": NOTE, "size_bytes": OLLAMA_REAL_BYTES, "context_length": 8192, "embedding_length": 1024},
    }
    blobs = {
        "application/vnd.docker.container.image.v1+json": json.dumps(config).encode(),
        "application/vnd.ollama.image.model": weights.gguf(OLLAMA_METADATA),
        "application/vnd.ollama.image.license": f"{NOTE}\nThe real model's licence is MIT.\n".encode(),
    }
    folder = out / "v2/library/bge-m3"
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
    for tag in OLLAMA_TAGS:
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

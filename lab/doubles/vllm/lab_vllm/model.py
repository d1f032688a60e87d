"""What a model directory says about the model: dimensions, data type, quantisation, weight files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GIB = 1024**3

# Activations and non-torch memory above the weights ("other" in the planner's arithmetic) where lab-weights.json does not say.
DEFAULT_OTHER_GIB = 1.5

POOLING_ARCHITECTURES = ("XLMRobertaModel", "BertModel", "RobertaModel", "XLMRobertaForSequenceClassification")
GENERATING_ARCHITECTURES = (
    "LlamaForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "MistralForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Phi3ForCausalLM",
    "GPTNeoXForCausalLM",
    "OPTForCausalLM",
)
# Keys under which configurations keep the longest position, in vLLM's order (config/model_arch.py, v0.19.1).
_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
)


class ModelError(Exception):
    """The model cannot be loaded; the text is vLLM's."""


class NotARepository(ModelError):
    """A path that is not there, with HF_HUB_OFFLINE: huggingface_hub is asked for it and refuses the name."""


@dataclass(frozen=True)
class Model:
    """A model as its directory describes it; sizes in bytes."""

    name: str
    directory: Path
    architecture: str
    dtype: str
    layers: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    derived_length: int
    length_key: str
    quantization: str
    quantization_bits: int
    weights: int
    other: int
    shards: list[str] = field(default_factory=list)

    @property
    def pooling(self) -> bool:
        return self.architecture in POOLING_ARCHITECTURES

    def kv_bytes_per_token(self, dtype_bytes: int = 2) -> int:
        """Bytes of KV cache for one token: keys and values of all layers."""
        return 0 if self.pooling else 2 * self.layers * self.kv_heads * self.head_dim * dtype_bytes


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE") in ("1", "true", "True")


def locate(name: str) -> Path:
    """Directory of a model given as a path or a hub id. Raises ModelError."""
    path = Path(name)
    if path.is_dir():
        return path
    if name.startswith(("/", ".")) or name.count("/") != 1:
        if _offline():
            raise NotARepository(not_a_repository(name))
        raise ModelError(invalid_repository(name))
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "/root/.cache/huggingface")) / "hub")
    snapshots = sorted((cache / ("models--" + name.replace("/", "--")) / "snapshots").glob("*"))
    if snapshots:
        return snapshots[-1]
    if not _offline():
        try:
            from huggingface_hub import snapshot_download

            return Path(snapshot_download(name))
        except Exception as error:
            raise ModelError(f"{invalid_repository(name)}\n{type(error).__name__}: {error}") from error
    raise ModelError(
        "We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.\n"
        "Check your internet connection or see how to run the library in offline mode at "
        "'https://huggingface.co/docs/transformers/installation#offline-mode'."
    )


def not_a_repository(path: str) -> str:
    """What huggingface_hub 0.36 says when vLLM takes a path that is not there for a repository, as it does with HF_HUB_OFFLINE."""
    if path.count("/") > 1:
        return f"Repo id must be in the form 'repo_name' or 'namespace/repo_name': '{path}'. Use `repo_type` argument if needed."
    return (
        "Repo id must use alphanumeric chars, '-', '_' or '.'. The name cannot start or end with '-' or '.' and the maximum length "
        f"is 96: '{path}'."
    )


def invalid_repository(name: str) -> str:
    """vLLM's text for a path or id without a configuration (transformers_utils/config.py)."""
    return (
        f"Invalid repository ID or local directory specified: '{name}'.\n"
        "Please verify the following requirements:\n"
        "1. Provide a valid Hugging Face repository ID.\n"
        "2. Specify a local directory that contains a recognized configuration file.\n"
        "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
        "   - For Mistral models: ensure the presence of a 'params.json'.\n"
    )


def read_model(name: str) -> Model:
    """The model in a directory or under a hub id. Raises ModelError."""
    directory = locate(name)
    if not (directory / "config.json").is_file():
        raise ModelError(invalid_repository(name))
    try:
        config: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"It looks like the config file at '{directory / 'config.json'}' is not a valid JSON file."
        ) from error
    if "model_type" not in config:
        raise ModelError(f"Unrecognized model in {name}. Should have a `model_type` key in its config.json.")
    architecture = (config.get("architectures") or ["?"])[0]
    if architecture not in POOLING_ARCHITECTURES + GENERATING_ARCHITECTURES:
        known = ", ".join(f"'{item}'" for item in GENERATING_ARCHITECTURES)
        raise ModelError(
            f"Model architectures ['{architecture}'] are not supported for now. Supported architectures: dict_keys([{known}])"
        )
    quantization = config.get("quantization_config") or {}
    length_key = next((key for key in _LENGTH_KEYS if key in config), "max_position_embeddings")
    heads = config["num_attention_heads"]
    derived = int(config.get(length_key, 2048))
    if architecture == "XLMRobertaModel":  # positions start after the padding index, as transformers does for RoBERTa
        derived -= int(config.get("pad_token_id", 1)) + 1
    shards = weight_files(directory)
    weights, other = _lab_sizes(directory, shards)
    return Model(
        name=name,
        directory=directory,
        architecture=architecture,
        dtype=str(config.get("torch_dtype") or config.get("dtype") or "float32"),
        layers=config["num_hidden_layers"],
        kv_heads=config.get("num_key_value_heads", heads),
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        hidden_size=config["hidden_size"],
        vocab_size=config["vocab_size"],
        derived_length=derived,
        length_key=length_key,
        quantization=str(quantization.get("quant_method", "")),
        quantization_bits=int(quantization.get("bits", 0)),
        weights=weights,
        other=other,
        shards=shards,
    )


def weight_files(directory: Path) -> list[str]:
    """Names of the weight files vLLM would read: safetensors, else pytorch_model*.bin."""
    for pattern in ("*.safetensors", "*.bin"):
        names = sorted(path.name for path in directory.glob(pattern) if path.name not in ("training_args.bin",))
        if names:
            return names
    return []


def _lab_sizes(directory: Path, shards: list[str]) -> tuple[int, int]:
    """(weights, other) in bytes: what the real model takes, from lab-weights.json, else the size of the files."""
    try:
        note = json.loads((directory / "lab-weights.json").read_text(encoding="utf-8"))
        return int(note["weights_gib"] * GIB), int(note.get("other_gib", DEFAULT_OTHER_GIB) * GIB)
    except FileNotFoundError:
        return sum((directory / name).stat().st_size for name in shards), int(DEFAULT_OTHER_GIB * GIB)


def check_shards(model: Model) -> None:
    """Raise ModelError for weight files that are missing, truncated or Git-LFS pointers, in safetensors' own words."""
    if not model.shards:
        raise ModelError(f"Cannot find any model weights with `{model.name}`")
    index = model.directory / "model.safetensors.index.json"
    if index.is_file():
        wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(wanted - set(model.shards))
        if missing:
            raise ModelError(f'No such file or directory: "{model.directory / missing[0]}"')
    for name in model.shards:
        if not name.endswith(".safetensors"):
            continue
        with open(model.directory / name, "rb") as handle:
            head = handle.read(8)
            size = os.fstat(handle.fileno()).st_size
            length = int.from_bytes(head, "little") if len(head) == 8 else 1 << 62
            if length > 100_000_000:
                raise ModelError("Error while deserializing header: header too large")
            try:
                header = json.loads(handle.read(length))
            except ValueError as error:
                raise ModelError("Error while deserializing header: invalid JSON in header") from error
        end = max((item["data_offsets"][1] for key, item in header.items() if key != "__metadata__"), default=0)
        if 8 + length + end != size:
            raise ModelError("Error while deserializing header: incomplete metadata, file not fully covered")

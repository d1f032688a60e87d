"""What a GGUF file says about its model: dimensions, context, and how large the real file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_serve.gguf import read_metadata

KNOWN = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "bert", "nomic-bert", "jina-bert-v2")
"""Architectures of llama.cpp that the lab may meet, of more than a hundred."""
ENCODERS = ("bert", "nomic-bert", "jina-bert-v2")
TYPES = {0: ("all F32", 32.0), 1: ("F16", 16.0), 7: ("Q8_0", 8.5), 15: ("Q4_K - Medium", 4.97)}
"""`general.file_type` -> its name, and the bits of a weight (Q4_K_M: those of Qwen3-4B's published file)."""


class ModelError(Exception):
    """The model cannot be loaded: what the program says, in the order of its lines. The last becomes `error loading model`."""

    def __init__(self, *lines: str) -> None:
        super().__init__(lines[-1])
        self.lines = lines[:-1]


@dataclass(frozen=True)
class Model:
    """A model as its file describes it; sizes in bytes."""

    path: str
    metadata: dict[str, Any]
    architecture: str
    size: int
    layers: int
    trained_context: int
    embedding: int
    vocabulary: int
    cache_values: int
    """Values that the cache keeps for one token, in all layers."""

    @property
    def encoder(self) -> bool:
        return self.architecture in ENCODERS

    @property
    def file_type(self) -> str:
        return TYPES.get(int(self.metadata.get("general.file_type", 1)), ("unknown", 16.0))[0]

    @property
    def weights(self) -> int:
        """How many weights the model has, about: from its size and the bits of each."""
        return int(self.size * 8 / TYPES.get(int(self.metadata.get("general.file_type", 1)), ("", 16.0))[1])


def read(path: str) -> Model:
    """Raises ModelError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        opened = f"gguf_init_from_file: failed to open GGUF file '{path}' ({error.strerror})"
        raise ModelError(opened, f"llama_model_loader: failed to load model from {path}") from error
    try:
        metadata = read_metadata(content)
    except ValueError as error:
        raise ModelError(
            f"gguf_init_from_reader: {error}", f"llama_model_loader: failed to load model from {path}"
        ) from error
    architecture = str(metadata.get("general.architecture", ""))
    if architecture not in KNOWN:
        raise ModelError(f"unknown model architecture: '{architecture}'")

    def own(key: str, default: int | None = None) -> int:
        value = metadata.get(f"{architecture}.{key}", default)
        if value is None:
            raise ModelError(f"error loading model hyperparameters: key not found in model: {architecture}.{key}")
        return int(value)

    layers, embedding, heads = own("block_count"), own("embedding_length"), own("attention.head_count")
    head = embedding // heads
    values = own("attention.head_count_kv", heads) * (
        own("attention.key_length", head) + own("attention.value_length", head)
    )
    return Model(
        path=path,
        metadata=metadata,
        architecture=architecture,
        size=int(metadata.get("lab.size_bytes", len(content))),
        layers=layers,
        trained_context=own("context_length"),
        embedding=embedding,
        vocabulary=len(metadata.get("tokenizer.ggml.tokens", ())) or own("vocab_size", 32000),
        cache_values=0 if architecture in ENCODERS else layers * values,
    )

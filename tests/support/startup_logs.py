"""The public start-up logs of vLLM in tests/data, as the planner's own types."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from stoker.plan.memory.kv_cache import CacheSettings, Pool, pool_of, version_of
from stoker.plan.memory.layout import Layout, layout_of
from stoker.plan.memory.predict import GIB, InstanceMemory

Entry = dict[str, Any]

#: Half of the last digit of a size in the log, in bytes.
ROUNDING = round(0.005 * GIB)

_SETTINGS = ("max_num_batched_tokens", "block_size", "tensor_parallel", "pipeline_parallel", "decode_context_parallel")


@cache
def _data() -> dict[str, list[Entry]]:
    path = Path(__file__).parents[1] / "data" / "vllm_startup_logs.toml"
    return tomllib.loads(path.read_text("utf-8"))


def logs() -> list[Entry]:
    return _data()["log"]


def refusals() -> list[Entry]:
    return _data()["refusal"]


def profiles() -> list[Entry]:
    return _data()["profile"]


def configs() -> dict[str, Entry]:
    """Each model's config.json, as far as the entries have it."""
    return {model["name"]: _config(model) for model in _data()["model"]}


def _config(model: Entry) -> Entry:
    config: Entry = dict(model["config"])
    if pattern := model.get("pattern"):
        layers = config["num_hidden_layers"]
        config["layer_types"] = [pattern[layer % len(pattern)] for layer in range(layers)]
    return config


def layout(entry: Entry) -> Layout:
    return layout_of(configs()[entry["model"]])


def settings(entry: Entry, **more: Any) -> CacheSettings:
    given = {name: entry[name] for name in _SETTINGS if name in entry}
    return CacheSettings(version_of(entry.get("version", "0.11.2")), **{**given, **more})


def pool(entry: Entry) -> Pool:
    return pool_of(layout(entry), settings(entry))


def instance(profile: Entry, **more: Any) -> InstanceMemory:
    """The instance of a profile, as a planner would describe it before its first start."""
    return InstanceMemory(
        profile["model"],
        layout(profile),
        round(profile["weights"] * GIB),
        profile["max_model_len"],
        settings(profile, max_num_batched_tokens=8192),
        utilization=profile["utilization"],
        max_num_seqs=profile["max_num_seqs"],
        **more,
    )

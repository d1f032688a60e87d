"""Bytes of weights on the card, from the best source there is, which is named."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from stoker.models import arithmetic
from stoker.models.card import ModelCard

#: A file of the lab's stand-ins for weights, beside them.
LAB_WEIGHTS = "lab-weights.json"
GIB = 1 << 30

#: Bytes of one floating-point value by the names in config.json (``torch_dtype``), in vLLM's ``--dtype`` and in safetensors headers.
#: ``auto`` is never more than 2: vLLM loads float32 checkpoints in half precision then.
FLOAT_BYTES = {
    "float64": 8, "F64": 8,
    "float32": 4, "float": 4, "F32": 4,
    "float16": 2, "half": 2, "bfloat16": 2, "auto": 2, "F16": 2, "BF16": 2,
}  # fmt: skip

#: What training leaves beside the weights; vLLM does not load it (v0.19.1, ``filter_files_not_needed_for_inference``).
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")


@dataclass(frozen=True)
class Weights:
    """What the weights take of one card when one card holds them all."""

    bytes: int
    #: Where the figure comes from, in a few words, for a table.
    source: str


class UnknownSize(Exception):
    """Nothing that is known tells how large the weights are: why, and what to do."""


def of_card(card: ModelCard, loaded_bytes: int = 2) -> Weights:
    """The weights of a card. ``loaded_bytes``: of one value that is not quantised, as the engine loads it. Raises UnknownSize."""
    if card.simulated_weights is not None:
        return simulated(card.simulated_weights)
    if card.tensors:
        return from_headers(card.tensors, loaded_bytes)
    found = of_files(card.sizes, card.config, loaded_bytes)
    if card.rounded.intersection(loaded_files(card.sizes)) and found.source.startswith("sizes"):
        return Weights(found.bytes, f"rounded {found.source}")
    return found


def of_files(sizes: Mapping[str, int | None], config: Mapping[str, object], loaded_bytes: int = 2) -> Weights:
    """The weights by file sizes, and where those are not known by arithmetic. Raises UnknownSize."""
    found = from_sizes(sizes, config, loaded_bytes)
    if found is not None:
        return found
    try:
        return Weights(arithmetic.weight_bytes(config, loaded_bytes), "computed by config arithmetic")
    except arithmetic.NotUnderstood as error:
        raise UnknownSize(f"the sizes of the weight files are not known, and {error}") from None


def from_headers(tensors: Mapping[str, int], loaded_bytes: int = 2) -> Weights:
    """By the headers' tensor bytes of each data type: floats are loaded in the engine's type, everything else as it is."""
    total = sum(
        count * loaded_bytes // FLOAT_BYTES[dtype] if dtype in FLOAT_BYTES else count
        for dtype, count in tensors.items()
    )
    return Weights(total, "safetensors headers")


def from_sizes(sizes: Mapping[str, int | None], config: Mapping[str, object], loaded_bytes: int = 2) -> Weights | None:
    """By the sizes of the files that the engine loads; None if one is not known. A header's few kilobytes count as weights."""
    files = loaded_files(sizes)
    known = [size for path in files if (size := sizes[path]) is not None]
    if not files or len(known) < len(files):
        return None
    total, kind = sum(known), files[0].rpartition(".")[2]
    stored = stored_bytes(config)
    if config.get("quantization_config") is not None or stored is None or stored == loaded_bytes:
        return Weights(total, f"sizes of the {kind} files")
    # An unquantised file with values of another width, for instance bge-m3's float32: the engine converts them while it loads.
    return Weights(
        total * loaded_bytes // stored, f"sizes of the {kind} files, {stored} bytes a value loaded as {loaded_bytes}"
    )


def loaded_files(paths: Collection[str]) -> list[str]:
    """The files that vLLM loads (v0.19.1, ``default_loader``): safetensors, else ``.bin``, else ``.pt``; in the top directory."""
    top = sorted(path for path in paths if "/" not in path and path not in _NOT_WEIGHTS)
    safetensors = fnmatch.filter(top, "*.safetensors")
    # Mistral's own format beside the usual one: the same weights again.
    usual = [path for path in safetensors if not path.startswith("consolidated")]
    return usual or safetensors or fnmatch.filter(top, "*.bin") or fnmatch.filter(top, "*.pt")


def stored_bytes(config: Mapping[str, object]) -> int | None:
    """Bytes of one value in the files, as config.json states it. None: it does not."""
    text = config.get("text_config")
    places = [config, text] if isinstance(text, Mapping) else [config]
    names = [str(place[key]) for place in places for key in ("torch_dtype", "dtype") if place.get(key)]
    return FLOAT_BYTES.get(names[0]) if names else None


def per_rank(total: int, tensor_parallel: int) -> int:
    """The share of one card under tensor parallel: an even part, rounded up.

    Norms, and key and value heads where there are fewer than cards, are held by every card; for the models that this is made for that
    is well below 1 %.
    """
    return -(-total // tensor_parallel)


def simulated(size: int) -> Weights:
    return Weights(size, f"simulated ({LAB_WEIGHTS})")


def simulated_bytes(paths: Collection[str], read: Callable[[str], str | bytes]) -> int | None:
    """What the lab's stand-ins simulate; None for real models.

    The weight files in the lab have a few kilobytes, with real names. Their own sizes would make every plan there wrong, so where
    the lab's note lies beside them it decides.
    """
    if LAB_WEIGHTS not in paths:
        return None
    return round(float(json.loads(read(LAB_WEIGHTS))["weights_gib"]) * GIB)

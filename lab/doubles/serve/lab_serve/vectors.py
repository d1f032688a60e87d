"""Embedding vectors without a model: finite values that depend on the exact sequence of pieces of the text."""

from __future__ import annotations

import hashlib
import math
import random


def vector(pieces: list[str], size: int) -> list[float]:
    """`size` values, the same for the same pieces; not normalised (length about 20, as bge-m3's raw output)."""
    seed = hashlib.sha256("\x00".join(pieces).encode()).digest()
    source = random.Random(seed)
    scale = 20.0 / math.sqrt(size)
    return [source.uniform(-1.7, 1.7) * scale for _ in range(size)]


def normalised(values: list[float]) -> list[float]:
    """The same direction with length 1."""
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]

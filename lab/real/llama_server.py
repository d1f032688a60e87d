"""Placeholder until the real builder is written; overwrite this file."""

from __future__ import annotations

from pathlib import Path


def build(folder: Path, cache: Path) -> Path:
    raise NotImplementedError

"""What of the real engines is set by the person, and what stands in engines.toml."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

TORCH_VARIABLE = "STOKER_LAB_TORCH"
"""A folder with the wheel of torch's CPU build, or the address of a page that links to it. Empty: pip's own index."""


def engine(name: str) -> dict[str, Any]:
    """The entry of engines.toml."""
    entry: dict[str, Any] = tomllib.loads((HERE / "engines.toml").read_text(encoding="utf-8"))[name]
    return entry


def torch_source() -> str:
    """Where the CPU build of torch comes from; empty when pip's own configuration decides."""
    return os.environ.get(TORCH_VARIABLE, "")


def requirements(file: str) -> list[str]:
    """The pins ("name==version") of a requirements file beside this module."""
    lines = (line.strip() for line in (HERE / file).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]

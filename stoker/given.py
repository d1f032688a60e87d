"""For group_data: values that whoever deploys gives by environment variables or by a file, checked where they are read.

    from stoker.given import number as _number
    max_len = _number("MAX_MODEL_LEN", 2048)

What is wrong is kept until the description has been read, so that a person hears of all of it at once; until then the default counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml

from stoker.spec.problems import Problem
from stoker.spec.vllm import Argument

T = TypeVar("T")

_WHERE = "environment"
_wrong: list[Problem] = []


def problems() -> list[Problem]:
    """What was wrong since this was asked last."""
    found = list(_wrong)
    _wrong.clear()
    return found


def text(variable: str, default: str) -> str:
    """The variable, or the default where it is not set or empty."""
    return os.environ.get(variable) or default


def choice(variable: str, default: str, among: Sequence[str]) -> str:
    """One of several words."""
    value = text(variable, default)
    if value in among:
        return value
    return _refuse(
        variable, value, "it is none of the words that are known here", f"write {' or '.join(among)}", default
    )


def number(variable: str, default: int, least: int = 1) -> int:
    """A whole number. The default is given back as it is."""
    value = os.environ.get(variable)
    if not value:
        return default
    if re.fullmatch(r"\s*[0-9]+\s*", value, re.ASCII) and int(value) >= least:
        return int(value)
    return _refuse(variable, value, f"it is no whole number from {least} on", f"write for instance {default}", default)


def share(variable: str, default: float) -> float:
    """A share above 0 and at most 1. The default is given back as it is."""
    value = os.environ.get(variable)
    if not value:
        return default
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if 0 < found <= 1:
        return found
    return _refuse(variable, value, "it is no share above 0 and at most 1", f"write for instance {default}", default)


def arguments(path: str | Path) -> dict[str, Argument]:
    """An engine's arguments from a YAML file, as vLLM's ``--config`` reads it; none where it cannot be used.

    Their names may be written with _ or -. So they are known to the plan, which a file inside the container would not be.
    """
    file = Path(path)
    if file.suffix not in (".yaml", ".yml"):
        remedy = f"rename it to {file.with_suffix('.yaml').name}"
        remedy += ": what is JSON is YAML too" if file.suffix == ".json" else ""
        reason = "vLLM reads a configuration only from a file whose name ends in .yaml or .yml"
        return _unusable(file, "file name", reason, remedy)
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        return _unusable(
            file, "file", str(getattr(error, "strerror", "") or error), "correct its name, or what is in it"
        )
    except yaml.YAMLError as error:
        return _unusable(file, "YAML", " ".join(str(error).split()), "correct it there")
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        return _unusable(
            file, "YAML", "it holds no names with values", "write one argument a line: max-model-len: 8192"
        )
    return {name.replace("_", "-"): value for name, value in found.items()}


def _refuse(variable: str, value: str, reason: str, remedy: str, default: T) -> T:
    _wrong.append(Problem(_WHERE, variable, repr(value), reason, f"{remedy}, or unset {variable}"))
    return default


def _unusable(file: Path, field: str, reason: str, remedy: str) -> dict[str, Argument]:
    _wrong.append(Problem(str(file), field, "", reason, remedy))
    return {}

"""For group_data: values that whoever deploys gives by environment variables or by a file, checked where they are read.

from stoker.given import number as _number
max_len = _number("MAX_MODEL_LEN", 2048)
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from stoker.spec.problems import Problem, SpecError
from stoker.spec.vllm import Argument

_WHERE = "environment"


def text(variable: str, default: str) -> str:
    """The variable, or the default where it is not set or empty."""
    return os.environ.get(variable) or default


def choice(variable: str, default: str, among: Sequence[str]) -> str:
    """One of several words. Raises SpecError."""
    value = text(variable, default)
    if value not in among:
        raise _wrong(variable, value, "it is none of the words that are known here", f"write {' or '.join(among)}")
    return value


def number(variable: str, default: int, least: int = 1) -> int:
    """A whole number. Raises SpecError."""
    value = text(variable, str(default))
    if not re.fullmatch(r"\s*[0-9]+\s*", value) or int(value) < least:
        raise _wrong(variable, value, f"it is no whole number from {least} on", f"write for instance {default}")
    return int(value)


def share(variable: str, default: float) -> float:
    """A share above 0 and at most 1. Raises SpecError."""
    value = text(variable, str(default))
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise _wrong(variable, value, "it is no share above 0 and at most 1", f"write for instance {default:g}")
    return found


def arguments(path: str | Path) -> dict[str, Argument]:
    """An engine's arguments from a YAML file, as vLLM's ``--config`` reads it. Raises SpecError.

    Their names may be written with _ or -. So they are known to the plan, which a file inside the container would not be.
    """
    file = Path(path)
    if file.suffix not in (".yaml", ".yml"):
        raise SpecError(
            [
                Problem(
                    str(file),
                    "file name",
                    repr(file.name),
                    "vLLM reads a configuration only from a file whose name ends in .yaml or .yml",
                    f"rename it to {file.with_suffix('.yaml').name}"
                    + (": what is JSON is YAML too" if file.suffix == ".json" else ""),
                )
            ]
        )
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError([Problem(str(file), "file", "", str(error.strerror), "correct its name")]) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SpecError([Problem(str(file), "YAML", "", reason, "correct it there")]) from None
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise SpecError(
            [
                Problem(
                    str(file),
                    "YAML",
                    "",
                    "it holds no names with values",
                    "write one argument a line: max-model-len: 8192",
                )
            ]
        )
    return {name.replace("_", "-"): value for name, value in found.items()}


def _wrong(variable: str, value: str, reason: str, remedy: str) -> SpecError:
    return SpecError([Problem(_WHERE, variable, repr(value), reason, f"{remedy}, or unset {variable}")])

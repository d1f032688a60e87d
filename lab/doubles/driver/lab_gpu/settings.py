"""How the doubles of this host shall behave: load times and faults, from engine.json, read anew at every question.

engine.json: {"load_seconds": 6, "token_ms": 5, "pull_seconds": 1.5, "faults": {"<target>": "<fault>[=<value>]"}}; every key is optional.
A target is a container name (environment STOKER_INSTANCE), a served model name, `driver`, or `all`.
"""

from __future__ import annotations

import json
import os

from lab_gpu import paths


def _engine() -> dict[str, object]:
    try:
        with open(paths.engine_file(), encoding="utf-8") as handle:
            content = json.load(handle)
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def number(name: str, default: float) -> float:
    """A setting: environment LAB_<NAME> first, then engine.json, then the default."""
    given = os.environ.get("LAB_" + name.upper())
    if given:
        return float(given)
    value = _engine().get(name)
    return float(value) if isinstance(value, (int, float)) else default


def fault(*targets: str) -> tuple[str, str]:
    """(fault, value) set for the first of these targets that has one, else ("", "").

    The environment LAB_FAULT wins, then this instance's name, the given targets in order, `all`.
    """
    chosen = os.environ.get("LAB_FAULT", "")
    if not chosen:
        faults = _engine().get("faults")
        faults = faults if isinstance(faults, dict) else {}
        names = [os.environ.get("STOKER_INSTANCE", ""), *targets]
        if targets != ("driver",):
            names.append("all")
        chosen = next((str(faults[name]) for name in names if name and name in faults), "")
    name, _, value = chosen.partition("=")
    return name, value

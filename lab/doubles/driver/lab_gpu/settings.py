"""How the doubles of this host shall behave: load times and faults, from engine.json, read anew at every question.

engine.json: {"load_seconds": 6, "token_ms": 5, "pull_seconds": 1.5, "faults": {"<target>": "<fault>[=<value>]"}}; every key is optional.
A target is a container name (environment STOKER_INSTANCE), a served model name, `driver`, or `all`.
"""

from __future__ import annotations

import json
import os

from lab_gpu import paths

_read: tuple[tuple[str, int, int], dict[str, object]] = (("", 0, 0), {})


def _engine() -> dict[str, object]:
    """Content of engine.json; read again only when the file changed, since it is asked for every token."""
    global _read
    path = paths.engine_file()
    try:
        about = os.stat(path)
        key = (path, about.st_ino, about.st_mtime_ns)
        if key != _read[0]:
            with open(path, encoding="utf-8") as handle:
                content = json.load(handle)
            _read = (key, content if isinstance(content, dict) else {})
    except (FileNotFoundError, ValueError):
        return {}
    return _read[1]


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

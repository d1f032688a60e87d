"""Setting and clearing the failures that the doubles of this host are told to show (engine.json, "faults")."""

from __future__ import annotations

import json
import os
import sys

from lab_gpu import paths, settings

# Fault -> what it does. The same table, with the real event behind each, is in lab/README.md.
VLLM_FAULTS = (
    "oom-start",
    "crash-loading",
    "hang-loading",
    "no-kernel",
    "stuck-after-error",
    "crash-after",
    "die-on-request",
    "garbage",
    "slow-tokens",
    "error-500",
    "hang-requests",
    "wrong-dimension",
    "nan",
    "engine-death",
    "hang-shutdown",
)
OLLAMA_FAULTS = ("nan", "wrong-dimension", "cpu", "crash-loading", "error-500", "hang-requests", "slow", "pull-fails")
DRIVER_FAULTS = ("not-loaded", "version-mismatch", "unknown-error", "version", "open-module", "order")
KNOWN = sorted({*VLLM_FAULTS, *OLLAMA_FAULTS, *DRIVER_FAULTS})


def main(arguments: list[str]) -> int:
    """Run one command line; returns 0, or 2 with a line that says what was wrong."""
    if arguments == ["list"]:
        for target, fault in sorted(_read().get("faults", {}).items()):
            print(f"{target} {fault}")
        return 0
    if arguments == ["at-boot"]:
        _apply_order()
        return 0
    if len(arguments) != 2:
        print("usage: fault list | fault TARGET FAULT[=VALUE] | fault TARGET clear", file=sys.stderr)
        return 2
    target, fault = arguments
    if fault != "clear" and fault.partition("=")[0] not in KNOWN:
        print(f"fault: unknown fault {fault!r}; known: {', '.join(KNOWN)}, clear", file=sys.stderr)
        return 2
    content = _read()
    faults = content.setdefault("faults", {})
    if fault == "clear":
        faults.pop(target, None)
        if target == "all":
            faults.clear()
    else:
        faults[target] = fault
    _write(content)
    return 0


def _apply_order() -> None:
    """What the machine is told about the order of its cards counts from its next boot on, for host and containers alike."""
    name, order = settings.fault("driver")
    if name == "order":
        with open(paths.order_file(), "w", encoding="utf-8") as handle:
            handle.write(order)


def _read() -> dict[str, dict[str, str]]:
    try:
        with open(paths.engine_file(), encoding="utf-8") as handle:
            content: dict[str, dict[str, str]] = json.load(handle)
            return content
    except FileNotFoundError:
        return {}


def _write(content: dict[str, dict[str, str]]) -> None:
    path = paths.engine_file()
    with open(path + ".new", "w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=1)
        handle.write("\n")
    os.replace(path + ".new", path)

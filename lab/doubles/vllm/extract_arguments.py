#!/usr/bin/env python3
"""Write arguments.json: every argument that `vllm serve` of a released vLLM takes, from the release's own parser.

Run it with the Python (3.11) of an environment in which that release's Python files can be imported: that of the lab's real vLLM for
CPU will do, no GPU and no compiled vLLM code is needed. The result does not depend on the versions of the other packages.

    PYTHONPATH=$(python3 -m lab.real.released 0.19.1 CACHE) python extract_arguments.py > lab_vllm/arguments.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")


def main() -> int:
    """Print the JSON; returns 0."""
    import vllm
    import vllm.platforms

    vllm.platforms.current_platform.device_type = (
        "cuda"  # the image's platform; only the device type matters to the parser
    )
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = ServeSubcommand().subparser_init(FlexibleArgumentParser(prog="vllm").add_subparsers())
    groups = {id(action): group.title for group in parser._action_groups for action in group._group_actions}
    arguments = [describe(action, groups.get(id(action), "")) for action in parser._actions if action.dest != "help"]
    json.dump({"version": vllm.__version__, "arguments": arguments}, sys.stdout, indent=1)
    print()
    return 0


def describe(action: argparse.Action, group: str) -> dict[str, Any]:
    """One argument as data; absent keys have argparse's default."""
    kinds = {
        "BooleanOptionalAction": "boolean",
        "_StoreTrueAction": "store_true",
        "_AppendAction": "append",
    }
    entry: dict[str, Any] = {"dest": action.dest, "group": group}
    if action.option_strings:
        entry["flags"] = list(action.option_strings)
    entry["action"] = kinds.get(type(action).__name__, "store")
    if entry["action"] in ("store", "append"):
        entry["type"] = type_name(action.type)
    for name in ("nargs", "choices", "metavar"):
        value = getattr(action, name)
        if value is not None and not (name == "nargs" and value == 0):
            entry[name] = list(value) if not isinstance(value, str) else value
    if isinstance(action.default, (str, int, float, bool, list)):
        entry["default"] = action.default
    target = dataclass_of(action.type)
    if target:
        entry["class"] = target.__name__
        entry["fields"] = [field.name for field in dataclasses.fields(target) if field.init]
    return entry


def unwrap(function: Any) -> tuple[Any, str]:
    """(innermost conversion, wrappers): vLLM nests optional_type(parse_type(int))."""
    wrappers = []
    while getattr(function, "__name__", "") in ("_optional_type", "_parse_type"):
        wrappers.append(function.__name__.strip("_").removesuffix("_type"))
        function = next(cell.cell_contents for cell in function.__closure__ if callable(cell.cell_contents))
    return function, "+".join(wrappers)


def type_name(function: Any) -> str:
    """The conversion as a name, for instance `optional(int)`."""
    inner, wrappers = unwrap(function)
    name = {None: "str"}.get(inner) or getattr(inner, "__name__", str(inner))
    name = {"loads": "json", "parse_dataclass": "dataclass", "<lambda>": "lower"}.get(name, name)
    for wrapper in reversed(wrappers.split("+") if wrappers else []):
        name = f"{wrapper}({name})"
    return name


def dataclass_of(function: Any) -> type | None:
    """The configuration object that an argument is parsed into, or none."""
    inner, _ = unwrap(function)
    return next(
        (value for value in getattr(inner, "__defaults__", None) or () if dataclasses.is_dataclass(value)), None
    )


if __name__ == "__main__":
    sys.exit(main())

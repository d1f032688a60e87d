"""vLLM's command-line arguments as they stand in group_data: what cannot work is refused here.

Facts are those of vLLM v0.19.1 (its released wheel), the last version with code for V100.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Annotated, Any

from pydantic import BeforeValidator


def _single(value: object) -> object:
    """One message instead of one for each type that it might have been."""
    if value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError("an argument has one value; write a text, a number, True or False; anything else as JSON text")
    return value


Argument = Annotated[str | int | float | bool | None, BeforeValidator(_single)]

#: Removed before v0.19.1 -> what to write instead.
REMOVED = {
    "task": "vLLM removed it in 0.13; write runner = 'pooling' for an embedding model, nothing for a chat model",
    "swap-space": "the V1 engine has no CPU swap; remove it",
    "use-v2-block-manager": "there is only one block manager; remove it",
    "num-lookahead-slots": "use speculative-config",
    "guided-decoding-backend": "use structured-outputs-config",
    "enable-reasoning": "reasoning-parser alone is enough",
    "disable-log-requests": "requests are not logged by default; enable-log-requests turns it on",
    "device": "the image decides the device; remove it",
    "worker-use-ray": "use distributed-executor-backend = 'ray'",
}

#: Set by Stoker from other fields of the instance.
OURS = {
    "model": "give the model's name in the instance's field `model`; one instance serves one model",
    "served-model-name": "it is the instance's field `model`",
    "host": "the engine listens inside its container; publish it with the instance's field `port`",
    "port": "the engine listens inside its container; publish it with the instance's field `port`",
    "api-key": "an argument shows in the process list",
}


Finding = tuple[str, str, str]


def problems_of(arguments: Mapping[str, Argument], version: str) -> list[Finding]:
    """Each argument that cannot be used as ``(name, reason, remedy)``.

    ``version`` is that of the instance's image. What its parser accepts is known for one version; for others only what was
    removed for good, and what Stoker itself sets, is refused.
    """
    found = [finding for name, value in arguments.items() for finding in _problem(name, value, version)]
    utilization = arguments.get("gpu-memory-utilization")
    if utilization is not None and not (isinstance(utilization, int | float) and 0 < utilization <= 1):
        reason = "it is a share of the GPU's memory, above 0 and at most 1"
        found.append(("gpu-memory-utilization", reason, "write 0.9 for 90 %"))
    return found


def _problem(name: str, value: Argument, version: str) -> Iterator[Finding]:
    # --compilation-config.cudagraph_mode sets one key of a JSON argument; only the argument's own name has dashes.
    own, dot, key = name.partition(".")
    plain = own.lstrip("-").replace("_", "-")
    if plain in REMOVED:
        yield name, f"vLLM v0.19.1 does not know --{plain}", REMOVED[plain]
    elif plain in OURS:
        yield name, "Stoker sets this argument itself", OURS[plain]
    elif own != plain:
        reason = "arguments are written without dashes in front and with - between words"
        yield name, reason, f"write {plain + dot + key!r}"
    elif plain == "config" and not str(value).endswith((".yaml", ".yml")):
        reason = "vLLM reads a configuration file only when its name ends in .yaml or .yml"
        yield name, reason, "convert it to YAML, or better write its keys as arguments here"
    elif version == known()["version"]:
        yield from _against_parser(plain, None if dot else value)


def _against_parser(name: str, value: Argument) -> Iterator[Finding]:
    accepted: Mapping[str, str | list[str]] = known()["arguments"]
    kind = accepted.get(name)
    if kind is None:
        close = difflib.get_close_matches(name, accepted, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "remove it"
        yield name, f"vLLM v{known()['version']} has no --{name}", remedy
    elif value is None:
        return
    elif kind == "flag" and not isinstance(value, bool):
        yield name, "it is a switch and takes no value", "write True or False"
    elif kind in ("int", "float") and (
        isinstance(value, bool) or not isinstance(value, int if kind == "int" else int | float)
    ):
        yield name, f"it is a {type(value).__name__}", "write a whole number" if kind == "int" else "write a number"
    elif isinstance(kind, list) and value not in kind:
        yield name, f"it must be one of {', '.join(kind)}", "write one of these"


@functools.cache
def known() -> Mapping[str, Any]:
    """What one released version's own parser accepts, written by scripts/vllm-arguments."""
    data: Mapping[str, Any] = json.loads(
        resources.files("stoker.spec").joinpath("vllm_arguments.json").read_text("utf-8")
    )
    return data


def to_argv(arguments: Mapping[str, Argument]) -> list[str]:
    """The arguments as a command line: True is a bare flag, False its ``--no-`` form, None leaves it out."""
    argv: list[str] = []
    for name, value in arguments.items():
        if value is None:
            continue
        if value is True:
            argv.append(f"--{name}")
        elif value is False:
            argv.append(f"--no-{name}")
        else:
            argv += [f"--{name}", str(value)]
    return argv

"""vLLM's command-line arguments as they stand in group_data: what cannot work is refused here.

Facts are those of vLLM v0.19.1 (its released wheel), the last version with code for V100.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
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
    "num-scheduler-steps": "the V1 engine has no multi-step scheduling; remove it",
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
    "hf-token": "it would show in the process list, and models are fetched before: name its variable by `keys` in group_data/all.py",
}

#: Switches that v0.19.1 refuses to start with unless another argument is there too.
NEEDS = {"enable-auto-tool-choice": "tool-call-parser", "enable-log-outputs": "enable-log-requests"}


#: Every instance gets these unless its `arguments` say otherwise. A gateway asks each engine for its health once a second; with a line for
#: every answer the log would soon hold nothing else, and what the engine said when it started would be rotated away.
DEFAULTS: Mapping[str, Argument] = {"disable-access-log-for-endpoints": "/health,/metrics"}
#: The first version that has the defaults' arguments; an earlier one would refuse to start.
_DEFAULTS_SINCE = (0, 16)


Finding = tuple[str, str, str]


def version_of(image: str) -> str:
    """``vllm/vllm-openai:v0.19.1`` -> 0.19.1; empty when the tag is not a plain version."""
    match = re.fullmatch(r".*:v?(\d+(?:\.\d+)+)", image.partition("@")[0])
    return match.group(1) if match else ""


def with_defaults(arguments: Mapping[str, Argument], version: str) -> Mapping[str, Argument]:
    """The arguments that the engine starts with. Of an unknown version nothing is known, so it gets what is written and no more."""
    known_to_have = version and tuple(map(int, version.split("."))) >= _DEFAULTS_SINCE
    return {**(DEFAULTS if known_to_have else {}), **arguments}


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
    if version == known()["version"]:
        found += _together(arguments)
    return found


def _together(arguments: Mapping[str, Argument]) -> Iterator[Finding]:
    """Arguments that are right by themselves, but not beside or without another one."""
    for name, other in NEEDS.items():
        if arguments.get(name) is True and not arguments.get(other):
            yield name, f"vLLM does not start with it alone: it needs --{other}", f"add {other!r}, or remove {name!r}"
    for name, value in arguments.items():
        whole = name.partition(".")[0]
        if name != whole and value is not None and arguments.get(whole) is not None:
            reason = f"vLLM would take this and forget everything in {whole!r}"
            yield name, reason, f"write all keys in {whole!r}, or each as '{whole}.KEY'"


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
    elif plain.startswith("no-") and value is False:
        yield name, "it turns a switch off, and False turns that around", f"write {plain[3:]!r}: True"
    elif version == known()["version"]:
        yield from _against_parser(name, plain, value, dotted=bool(dot))


def _against_parser(name: str, plain: str, value: Argument, dotted: bool) -> Iterator[Finding]:
    accepted: Mapping[str, str | list[str | int]] = known()["arguments"]
    kind = accepted.get(plain)
    if kind is None:
        close = difflib.get_close_matches(plain, accepted, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "remove it"
        yield name, f"vLLM v{known()['version']} has no --{plain}", remedy
    elif dotted and kind not in ("text", "json"):
        yield name, f"--{plain} has no keys", f"write {plain!r}"
    elif value is None or dotted:
        return
    elif kind == "flag" and not isinstance(value, bool):
        yield name, "it is a switch and takes no value", "write True or False"
    elif kind in ("int", "float") and (
        isinstance(value, bool) or not isinstance(value, int if kind == "int" else int | float)
    ):
        yield name, f"it is a {type(value).__name__}", "write a whole number" if kind == "int" else "write a number"
    elif kind not in ("flag", "int", "float") and isinstance(kind, str) and isinstance(value, bool):
        yield name, "it is no switch, it takes a value", "write the value"
    elif kind in ("size", "size or auto") and not _is_size(value, auto=kind != "size"):
        yield (
            name,
            "it is no size",
            "write a whole number, or one with k, m, g, t (thousands) or K, M, G, T (powers of 1024)",
        )
    elif kind == "json" and not _is_json(value):
        yield name, "it is no JSON", """write JSON as text: '{"key": "value"}', or one key as 'NAME.key'"""
    # True == 1 and 16.0 == 16 in Python, but not on a command line.
    elif isinstance(kind, list) and (value not in kind or type(value) is not type(kind[0])):
        yield name, f"it must be one of {', '.join(map(str, kind))}", "write one of these"


def _is_size(value: object, auto: bool) -> bool:
    """As v0.19.1 reads 8192, "8k" (8000), "8K" (8192) and "25.6k"; decimals only of thousands."""
    text = str(value).strip()
    return bool(re.fullmatch(r"\d+[KMGT]?|\d+(\.\d+)?[kmgt]", text)) or (auto and text.lower() in ("auto", "-1"))


def _is_json(value: object) -> bool:
    try:
        json.loads(str(value))
    except ValueError:
        return False
    return True


@functools.cache
def known() -> Mapping[str, Any]:
    """What one released version's own parser accepts, written by scripts/vllm-arguments."""
    data: Mapping[str, Any] = json.loads(
        resources.files("stoker.spec").joinpath("vllm_arguments.json").read_text("utf-8")
    )
    return data


def to_argv(arguments: Mapping[str, Argument]) -> list[str]:
    """The arguments as a command line: True is a bare flag, False its ``--no-`` form, None leaves it out.

    The key of a JSON argument (``a.b``) always has a value, which vLLM reads as JSON: there True is ``true``.
    """
    return [word for name, value in arguments.items() if value is not None for word in _words(name, value)]


def _words(name: str, value: str | int | float | bool) -> list[str]:
    if isinstance(value, bool) and "." not in name:
        return [f"--{name}"] if value else _off(name)
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    # With a dash in front the parser would take the value for an option.
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def _off(name: str) -> list[str]:
    """Some switches can only be turned on, and are off when they are not there: vLLM knows no ``--no-headless``."""
    kinds: Mapping[str, str | list[str | int]] = known()["arguments"]
    return [] if kinds.get(name) == "flag" and f"no-{name}" not in kinds else [f"--no-{name}"]

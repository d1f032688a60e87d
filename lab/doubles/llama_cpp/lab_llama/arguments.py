"""llama-server's command line: every option of build 11312 is known, with its environment variable; those that change what is seen count.

arguments.json is extracted from the real program by extract_arguments.py. What is refused, and in which words, follows common/arg.cpp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_llama.log import plain

POOLING = ("none", "mean", "cls", "last", "rank")
CACHE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 1.0625,
    "q5_1": 0.75,
    "q5_0": 0.6875,
    "q4_1": 0.625,
    "q4_0": 0.5625,
}
"""Bytes of a value in the cache by its type: blocks of 32 values with their scales (ggml-common.h). iq4_nl is as q4_0."""
CACHE_BYTES["iq4_nl"] = CACHE_BYTES["q4_0"]
ON, OFF = ("on", "enabled", "true", "1"), ("off", "disabled", "false", "0")
WHOLE = frozenset({
    "--threads", "--threads-batch", "--threads-http", "--ctx-size", "--n-predict", "--batch-size", "--ubatch-size", "--parallel",
    "--port", "--timeout", "--main-gpu", "--keep", "--seed", "--cache-reuse", "--cache-ram", "--ctx-checkpoints", "--log-verbosity",
})  # fmt: skip
"""Options that want a whole number, as far as a deploy may set them."""
ENDING = ("--usage", "--version", "--list-devices")
ALL_LAYERS = 1 << 20


class Refused(Exception):
    """The command line ends the program with exit code 1 and this text on stderr."""


class Ends(Exception):
    """The command line asks for something that is printed before the end with exit code 0; the text is one of ENDING."""


@dataclass(frozen=True)
class Options:
    """What counts of a command line. `gpu_layers` is None for `auto`; `context` is 0 for the model's own."""

    model: str
    aliases: tuple[str, ...]
    host: str
    port: int
    context: int
    parallel: int
    unified: bool
    gpu_layers: int | None
    batch: int
    micro_batch: int
    threads: int
    fit: bool
    metrics: bool
    embeddings: bool
    pooling: str
    cache_bytes: float
    keys: tuple[str, ...]
    has_page: bool


class _Option:
    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.names: list[str] = entry["names"]
        self.value, self.variable = str(entry["value"]), str(entry.get("env", ""))
        positive = [name for name in self.names if not name.startswith("--no-")] or self.names
        self.key = max(positive, key=len)

    def usage(self) -> str:
        """How the program shows the option; its description is left out."""
        lines = [f"{', '.join(self.names)} {self.value}".rstrip()]
        lines += [f"{'':<40}(env: {self.variable})"] if self.variable else []
        return "\n".join(lines)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Raises Refused, or Ends with the option that asks for an end."""
    options = [_Option(entry) for entry in json.loads((Path(__file__).parent / "arguments.json").read_text())]
    by_name = {name: option for option in options for name in option.names}
    given: dict[str, str] = {}
    for option in options:
        if option.variable and option.variable in environment:
            try:
                given[option.key] = _checked(option, environment[option.variable], from_environment=True)
            except ValueError as error:
                raise Refused(f'error while handling environment variable "{option.variable}": {error}\n\n') from None
    rest = list(arguments)
    while rest:
        name = rest.pop(0)
        name = name.replace("_", "-") if name.startswith("--") else name
        if name not in by_name:
            raise Refused(f"error: invalid argument: {name}")
        option = by_name[name]
        if option.variable and option.variable in environment:
            plain(
                f"warn: {option.variable} environment variable is set, but will be overwritten by command line argument {name}"
            )
        if option.key in ENDING:
            raise Ends(option.key)
        if not option.value:
            given[option.key] = "0" if name.startswith("--no-") and option.key != name else "1"
            continue
        try:
            if not rest:
                raise ValueError("expected value for argument")
            given[option.key] = _checked(option, rest.pop(0))
        except ValueError as error:
            text = f'error while handling argument "{name}": {error}\n\nusage:\n{option.usage()}\n\n\nto show complete usage, run with -h'
            raise Refused(text) from None
    return _options(given)


def _checked(option: _Option, value: str, *, from_environment: bool = False) -> str:
    """The value as it counts. Raises ValueError with the program's words."""
    if not option.value and from_environment:
        if value not in (*ON, *OFF):
            raise ValueError("invalid boolean value")
        return "1" if value in ON else "0"
    if option.key in WHOLE:
        number = str(_number(value))
        if (option.key, number) == ("--parallel", "0"):
            raise ValueError("error: invalid value for n_parallel\n")
        return number
    match option.key:
        case "--n-gpu-layers" if value not in ("auto", "all"):
            return str(_number(value))
        case "--flash-attn" if value not in (*ON, *OFF, "auto", "-1"):
            raise ValueError(f"error: unknown value for --flash-attn: '{value}'\n")
        case "--fit" if value not in (*ON, *OFF):
            raise ValueError(f"error: unknown value for --fit: '{value}'\n")
        case "--pooling" if value not in POOLING:
            raise ValueError("invalid value")
        case "--cache-type-k" | "--cache-type-v" if value not in CACHE_BYTES:
            raise ValueError(f"Unsupported cache type: {value}")
    return value


def _number(text: str) -> int:
    """std::stoi: leading digits count. Raises ValueError with what its exception says."""
    found = re.match(r"\s*[+-]?\d+", text)
    if not found:
        raise ValueError("stoi")
    return int(found[0])


def _options(given: Mapping[str, str]) -> Options:
    def number(name: str, default: int) -> int:
        return int(given.get(name, default))

    def flag(name: str, default: bool = False) -> bool:
        return given.get(name, "1" if default else "0") == "1"

    layers = given.get("--n-gpu-layers", "auto")
    parallel = number("--parallel", -1)
    model = given.get("--model", "")
    # A set in the program: the first of them in alphabetical order is the one that answers show.
    aliases = tuple(sorted({alias.strip() for alias in given.get("--alias", "").split(",")} - {""}))
    cache = (CACHE_BYTES[given.get("--cache-type-k", "f16")] + CACHE_BYTES[given.get("--cache-type-v", "f16")]) / 2
    return Options(
        model=model,
        aliases=aliases or (model,),
        host=given.get("--host", "127.0.0.1"),
        port=number("--port", 8080),
        context=number("--ctx-size", 0),
        parallel=4 if parallel < 0 else parallel,
        unified=parallel < 0,
        gpu_layers=None if layers == "auto" else ALL_LAYERS if layers == "all" else int(layers),
        batch=number("--batch-size", 2048),
        micro_batch=number("--ubatch-size", 512),
        threads=number("--threads", -1),
        fit=given.get("--fit", "on") in ON,
        metrics=flag("--metrics"),
        embeddings=flag("--embeddings"),
        pooling=given.get("--pooling", ""),
        cache_bytes=cache,
        keys=tuple(key for key in given.get("--api-key", "").split(",") if key),
        has_page=flag("--webui", True),
    )

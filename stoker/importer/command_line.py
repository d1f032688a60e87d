"""vLLM's command line as it was written by hand, by its parser's own list of arguments. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stoker.spec.vllm import Argument, known

#: Short forms (v0.19.1, engine/arg_utils.py and entrypoints/openai/cli_args.py).
_SHORT = {
    "-tp": "tensor-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-dp": "data-parallel-size",
    "-dcp": "decode-context-parallel-size",
    "-q": "quantization",
    "-O": "optimization-level",
    "-cc": "compilation-config",
}

#: What stands before the arguments, in all the ways to start the server.
_PROGRAM = ("vllm", "serve", "vllm.entrypoints.openai.api_server", "vllm.entrypoints.api_server")


#: A shell's, before a program that is not known. It is no model, and may hold a secret.
_ASSIGNMENT = re.compile(r"\w+=")


@dataclass(frozen=True)
class CommandLine:
    """``models``: every model that is named, in order. ``arguments``: name without dashes -> value; the last one counts."""

    models: tuple[str, ...]
    served: tuple[str, ...]
    arguments: dict[str, Argument]


def parse(words: Sequence[str]) -> CommandLine:
    rest = _after_program(words)
    models: list[str] = []
    served: list[str] = []
    found: dict[str, Argument] = {}
    position = 0
    while position < len(rest):
        word = rest[position]
        position += 1
        if not word.startswith("-"):
            if not _ASSIGNMENT.match(word):
                models.append(word)
            continue
        name, equals, value = _name(word)
        values = [value] if equals else []
        if not equals:
            while position < len(rest) and not _is_option(rest[position]) and _wants(name, len(values)):
                values.append(rest[position])
                position += 1
        if name == "model":
            models += values
        elif name == "served-model-name":
            served = values
        else:
            found[name] = typed(name, " ".join(values)) if values else True
    return CommandLine(tuple(models), tuple(served), found)


def typed(name: str, text: str) -> Argument:
    """A value as the description writes it: a number where the parser wants one, else the text."""
    kind = known()["arguments"].get(name.partition(".")[0].replace("_", "-"))
    low = text.strip().lower()
    if kind == "flag" and low in ("true", "false"):
        return low == "true"
    wants_number = kind in ("int", "float", "size", "size or auto") or (
        isinstance(kind, list) and isinstance(kind[0], int)
    )
    if wants_number or kind is None:
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return text


def _after_program(words: Sequence[str]) -> list[str]:
    places = [place for place, word in enumerate(words) if word in _PROGRAM]
    rest = list(words[places[-1] + 1 :] if places else words)
    ends = [place for place, word in enumerate(rest) if word in ("&&", "||", ";", "&", "|")]
    return rest[: ends[0]] if ends else rest


def _name(word: str) -> tuple[str, str, str]:
    given, equals, value = word.partition("=")
    if given in _SHORT:
        return _SHORT[given], equals, value
    own, dot, key = given.lstrip("-").partition(".")
    return own.replace("_", "-") + dot + key, equals, value


def _is_option(word: str) -> bool:
    return word.startswith("--") or word in _SHORT


def _wants(name: str, have: int) -> bool:
    """Whether the next word belongs to it: switches take none, a few take several, an argument that is not known takes one."""
    if known()["arguments"].get(name) == "flag":
        return False
    return have == 0 or name in ("served-model-name", "middleware", "lora-modules", "cudagraph-capture-sizes")

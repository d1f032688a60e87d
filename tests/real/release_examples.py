"""Values for every argument of the release, by the type that its parser gives it: what a description may say, and what must come out."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.description import PROJECT

from stoker.spec.vllm import NEEDS, Argument, known, problems_of, to_argv

RELEASE = json.loads((PROJECT / "lab/doubles/vllm/lab_vllm/arguments.json").read_text(encoding="utf-8"))

Pair = tuple[Any, Any]
"""(as described, as parsed)."""

_TEXTS: Sequence[Pair] = [(text, text) for text in ("abc", "-abc", "--a_b.c d", "a=b", "1.5")] + [(8, "8"), (-1, "-1")]
_JSON: Sequence[Pair] = [('{"a": {"b": [1]}}', {"a": {"b": [1]}}), ("{}", {})]
_INTEGERS: Sequence[Pair] = [(1, 1), (0, 0), (-1, -1)]
_SIZES: Sequence[Pair] = [(8192, 8192), ("8k", 8000), ("8K", 8192)]

#: By the conversion of the parser, without optional(...) and parse(...).
_PAIRS: Mapping[str, Sequence[Pair]] = {
    "str": _TEXTS,
    "int": _INTEGERS,
    "float": [(0.5, 0.5), (1, 1.0), (-0.5, -0.5), (1e-05, 1e-05)],
    "json": _JSON,
    "dataclass": [("{}", {})],
    "union_dict_and_str": [*_TEXTS, *_JSON],
    "human_readable_int": _SIZES,
    "human_readable_int_or_auto": [*_SIZES, ("auto", -1), (-1, -1)],
}

#: The keys of a JSON argument, each with its own value.
_KEYS: Mapping[str, Pair] = {
    "on": (True, True),
    "off.deep": (False, False),
    "text": ("abc", "abc"),
    "minus": ("-abc", "-abc"),
    "number": (-0.5, -0.5),
    "list": ("[1, 2]", [1, 2]),
    "several+": ("a,b", ["a", "b"]),
}

#: No example by type: what it reads must be there, or it has a form of its own.
SPECIAL: Mapping[str, Sequence[Pair]] = {
    "config": [],
    "chat-template": [("{{ messages }}", "{{ messages }}"), ("-{{ messages }}", "-{{ messages }}")],
    "lora-modules": [("a=/b", {"name": "a", "path": "/b"})],
}


@dataclass(frozen=True)
class Example:
    name: str
    argument: str
    arguments: Mapping[str, Argument]
    destination: str
    expected: Any

    @property
    def line(self) -> list[str]:
        return ["serve", "/model_data/m", *to_argv(self.arguments)]

    @property
    def refused(self) -> bool:
        """By Stoker, before any host is contacted."""
        return bool(problems_of(self.arguments, known()["version"]))


@functools.cache
def examples_by_name() -> Mapping[str, list[Example]]:
    """By argument: the values that Stoker lets through."""
    return {name: [example for example in _examples(name) if not example.refused] for name in known()["arguments"]}


@functools.cache
def wrong_examples_by_name() -> Mapping[str, list[Example]]:
    """By argument: values of another kind than its own."""
    return {name: list(_wrong(name)) for name in known()["arguments"]}


def entry_of(name: str) -> Mapping[str, Any]:
    """The release's argument behind a name of vllm_arguments.json."""
    found: Mapping[str, Any] = next(entry for entry in RELEASE["arguments"] if f"--{name}" in _flags(entry))
    return found


def _flags(entry: Mapping[str, Any]) -> list[str]:
    return [flag.replace("_", "-") for flag in entry.get("flags", [])]


def conversion_of(entry: Mapping[str, Any]) -> str:
    return str(entry.get("type", "")).replace("optional(", "").replace("parse(", "").rstrip(")")


def _examples(name: str) -> Iterator[Example]:
    entry = entry_of(name)
    conversion = conversion_of(entry)
    for value, expected in _pairs(name, entry, conversion):
        beside: dict[str, Argument] = (
            {NEEDS[name]: "hermes" if name == "enable-auto-tool-choice" else True} if name in NEEDS else {}
        )
        yield _example(name, entry, {name: value, **beside}, expected)
    if conversion == "json":
        keys: dict[str, Argument] = {f"{name}.{key}": value for key, (value, _) in _KEYS.items()}
        whole = {key.rstrip("+"): expected for key, (_, expected) in _KEYS.items() if "." not in key}
        yield _example(name, entry, keys, whole | {"off": {"deep": False}})


def _pairs(name: str, entry: Mapping[str, Any], conversion: str) -> Sequence[Pair]:
    if name in SPECIAL:
        return SPECIAL[name]
    if entry["action"] in ("boolean", "store_true"):
        off = name.startswith("no-")
        return [(True, not off), (False, off)]
    if "choices" in entry:
        # vLLM makes None of "None", and then finds that it is none of the choices.
        return [(choice, choice) for choice in entry["choices"] if choice != "None"]
    return _PAIRS[conversion]


def _wrong(name: str) -> Iterator[Example]:
    entry = entry_of(name)
    flag = entry["action"] in ("boolean", "store_true")
    conversion = conversion_of(entry)
    numeric = "choices" in entry or conversion in ("int", "float")
    strict = numeric or conversion.startswith("human_readable_int") or conversion in ("json", "dataclass")
    values: list[Argument] = ["yes", 1] if flag else [True, False, *(["nonsense", "{"] if strict else [])]
    values += ["1.5K"] if conversion.startswith("human_readable_int") else []
    for value in values:
        yield _example(name, entry, {name: value}, None)
    if flag or numeric:
        yield _example(name, entry, {f"{name}.key": "half"}, None)


def _example(name: str, entry: Mapping[str, Any], arguments: dict[str, Argument], expected: Any) -> Example:
    return Example(f"{name}: {arguments}", name, arguments, entry["dest"], expected)

"""pydantic's errors in the words of a person: where, what, why, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stoker.engine.registry import NAMES
from stoker.spec.base import FORMS
from stoker.spec.problems import Problem

_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "True or False",
    "string_type": "a text in quotes",
    "dict_type": "a dictionary {...}",
    "tuple_type": "a list [...]",
    "model_type": "a dictionary {...}",
    "model_attributes_type": "a dictionary {...}",
    "list_type": "a list [...]",
}


_ONE_MODEL = ("one instance serves one model", "make one instance for each model, each with its own port")

_FOUND = {
    "int": "a whole number",
    "float": "a number with a decimal point",
    "str": "a text",
    "bool": "True or False",
    "list": "a list",
    "tuple": "a list",
    "dict": "a dictionary",
    "NoneType": "None",
}


def explain(error: ValidationError, origin: Callable[[str], str], data: Mapping[str, object]) -> list[Problem]:
    """One Problem for each mistake. ``origin`` tells in which file a top-level name was written."""
    errors = error.errors()
    meant = {(*details["loc"][:-1], _guess(details)) for details in errors if details["type"] == "extra_forbidden"}
    return [_explain(details, origin, data) for details in errors if not _follows(details, meant)]


def _follows(details: ErrorDetails, meant: Container[tuple[int | str | None, ...]]) -> bool:
    """Whether an error only repeats another: a name misspelt is also missing, and a list of wrong entries is also empty."""
    if details["type"] == "missing":
        return details["loc"] in meant
    return details["type"] == "too_short" and bool(details["input"]) and details["ctx"]["actual_length"] == 0


def _guess(details: ErrorDetails) -> str | None:
    return closest(str(details["loc"][-1]), _fields_beside(details["loc"]))


def unknown_name(where: str, name: str, value: object, known: Iterable[str]) -> Problem:
    return Problem(where, name, short(value), "no setting has this name", _did_you_mean(name, known))


def short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _explain(details: ErrorDetails, origin: Callable[[str], str], data: Mapping[str, object]) -> Problem:
    location = details["loc"]
    top = str(location[0]) if location else ""
    cause, remedy = reason(details)
    value = "" if details["type"] == "missing" else short(details["input"])
    return Problem(origin(top), _path(location), value, cause, remedy, _instance(location, data))


def reason(details: ErrorDetails) -> tuple[str, str]:
    """Why a value cannot be used, and what to do."""
    kind, context = details["type"], details.get("ctx", {})
    name = str(details["loc"][-1]) if details["loc"] else ""
    if kind == "extra_forbidden":
        if name == "models" and "instances" in details["loc"]:
            return _ONE_MODEL
        return "there is no field of this name", _did_you_mean(name, _fields_beside(details["loc"]))
    if kind == "missing":
        return "it is not given and has no default", f"add {name!r}"
    if kind == "literal_error":
        return f"it must be {context.get('expected')}", "write one of these"
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern"))
        return "it does not have the right form", f"write {FORMS.get(pattern, 'text that matches ' + pattern)}"
    if kind == "value_error":
        why, _, remedy = str(context.get("error", details["msg"])).partition("; ")
        return why, remedy or "correct the value"
    if kind in _WANTED:
        if name == "model" and isinstance(details["input"], list | tuple):
            return _ONE_MODEL
        found = type(details["input"]).__name__
        return f"it is {_FOUND.get(found, found)}", f"write {_WANTED[kind]}"
    if kind == "too_short":
        return "it is empty", "write at least one"
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        return details["msg"].replace("Input should be", "it must be"), "write a number in that range"
    return details["msg"], "correct the value"


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in _without_kind(location):
        if part == "[key]":  # what is wrong is the name itself, which stands before
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _without_kind(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The kind of a model stands in pydantic's location, not in what the person wrote."""
    return (*location[:2], *location[3:]) if location[:1] == ("models",) and "[key]" not in location else location


def _at(data: Any, location: tuple[int | str, ...]) -> Any:
    for part in location:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _instance(location: tuple[int | str, ...], data: Mapping[str, object]) -> str:
    if "instances" not in location:
        return ""
    instance = _at(data, location[: location.index("instances") + 2])
    return str(instance.get("name", "")) if isinstance(instance, dict) else ""


def _fields_beside(location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that are allowed where the unknown one stands."""
    from stoker.spec.fleet import HostDescription
    from stoker.spec.settings import MODEL_KINDS, Settings, Versions

    top = str(location[0])
    model: Any = Settings if top in Settings.model_fields else HostDescription
    for depth, part in enumerate(location[:-1]):
        if top == "models" and depth == 2:
            model = MODEL_KINDS[str(part)]
        elif isinstance(part, str) and hasattr(model, "model_fields") and part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation)
    return sorted([*getattr(model, "model_fields", {}), *(NAMES if model is Versions else ())])


def _inner_model(annotation: Any) -> Any:
    """The model class inside ``tuple[X, ...]``, ``X | None`` or ``dict[str, X]``."""
    if hasattr(annotation, "model_fields"):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = closest(name, known)
    if close:
        return f"did you mean {close!r}?"
    return f"use one of {', '.join(known)}" if known else "remove it"

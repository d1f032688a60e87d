"""pydantic's errors in the words of a person: where, what, why, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

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


def explain(error: ValidationError, origin: Callable[[str], str], data: Mapping[str, object]) -> list[Problem]:
    """One Problem for each error. ``origin`` tells in which file a top-level name was written."""
    return [_explain(details, origin, data) for details in error.errors()]


def unknown_name(where: str, name: str, value: object, known: Iterable[str]) -> Problem:
    return Problem(where, name, short(value), "no setting has this name", _did_you_mean(name, known))


def short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _explain(details: ErrorDetails, origin: Callable[[str], str], data: Mapping[str, object]) -> Problem:
    location = details["loc"]
    top = str(location[0]) if location else ""
    reason, remedy = _reason(details, data)
    value = "" if details["type"] == "missing" else short(details["input"])
    return Problem(origin(top), _path(location), value, reason, remedy, _instance(location, data))


def _reason(details: ErrorDetails, data: Mapping[str, object]) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx", {})
    name = str(details["loc"][-1]) if details["loc"] else ""
    if kind == "extra_forbidden":
        siblings = _at(data, details["loc"][:-1])
        return "there is no field of this name", _did_you_mean(name, _fields_beside(details["loc"], siblings))
    if kind == "missing":
        return "it is not given and has no default", f"add {name!r}"
    if kind == "literal_error":
        return f"it must be {context.get('expected')}", "write one of these"
    if kind == "string_pattern_mismatch":
        return (
            f"it does not have the form {context.get('pattern')}",
            "use letters, digits and the signs which that form allows",
        )
    if kind == "value_error":
        reason, _, remedy = str(context.get("error", details["msg"])).partition("; ")
        return reason, remedy or "correct the value"
    if kind in _WANTED:
        if name == "model" and isinstance(details["input"], list | tuple):
            return "one instance serves one model", "make one instance for each model, each with its own port"
        return f"it is a {type(details['input']).__name__}", f"write {_WANTED[kind]}"
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        return details["msg"].removeprefix("Input should be "), "write a number in that range"
    return details["msg"], "correct the value"


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


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


def _fields_beside(location: tuple[int | str, ...], siblings: object) -> list[str]:
    """Names of the fields that are allowed where the unknown one stands."""
    from stoker.spec.fleet import HostDescription
    from stoker.spec.settings import Settings

    top = str(location[0])
    model: Any = Settings if top in Settings.model_fields else HostDescription
    for part in location[:-1]:
        if isinstance(part, str) and hasattr(model, "model_fields") and part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation)
    return sorted(getattr(model, "model_fields", {}))


def _inner_model(annotation: Any) -> Any:
    """The model class inside ``tuple[X, ...]``, ``X | None`` or ``dict[str, X]``."""
    if hasattr(annotation, "model_fields"):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"use one of {', '.join(known)}" if known else "remove it"

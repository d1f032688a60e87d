"""Cheap, deterministic replies that say they are simulated."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lab_serve.tokens import tokenize

_SENTENCES = (
    "This is a simulated reply of the Stoker lab; no model computed it.",
    "The prompt had {count} tokens and the checksum {digest}.",
    "Every request with the same prompt gets the same words.",
    "Tokens arrive one by one so that streaming can be seen and measured.",
    "A real engine would answer the question here.",
    "The gateway, the deploy and the tests only need that text flows.",
)


def reply(
    prompt: str, max_tokens: int | None, *, garbage: bool, exact: bool, response_format: Any
) -> tuple[list[str], str]:
    """(pieces, finish reason) of the reply to a prompt. `exact` is ignore_eos or min_tokens: never stop early."""
    if garbage:
        return ["!"] * (max_tokens or 32), "length"
    form = response_format.get("type") if isinstance(response_format, dict) else None
    if form in ("json_object", "json_schema"):
        text = json.dumps(_instance(form, response_format), ensure_ascii=False)
        pieces = _pieces(text)
        return _cut(pieces, max_tokens)
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    text = " ".join(_SENTENCES).format(count=len(tokenize(prompt)), digest=digest)
    pieces = _pieces(text)
    if exact and max_tokens:
        while len(pieces) < max_tokens:
            pieces += _pieces(
                " "
                + _SENTENCES[(len(pieces) + int(digest, 16)) % len(_SENTENCES)].format(count=len(pieces), digest=digest)
            )
        return pieces[:max_tokens], "length"
    return _cut(pieces, max_tokens)


def _cut(pieces: list[str], max_tokens: int | None) -> tuple[list[str], str]:
    if max_tokens is not None and max_tokens < len(pieces):
        return pieces[:max_tokens], "length"
    return pieces, "stop"


def _pieces(text: str) -> list[str]:
    """Words with the space before them, as byte-pair tokens carry it."""
    words = text.split(" ")
    return [words[0], *(" " + word for word in words[1:])]


def _instance(form: str, response_format: dict[str, Any]) -> Any:
    if form == "json_object":
        return {"simulated": True, "note": "simulated reply of the Stoker lab", "entities": [], "relations": []}
    schema = (response_format.get("json_schema") or {}).get("schema") or {}
    return _of_schema(schema, schema, 0)


def _of_schema(schema: Any, root: dict[str, Any], depth: int) -> Any:
    """A smallest instance of a JSON schema (the keywords that applications use)."""
    if not isinstance(schema, dict) or depth > 12:
        return None
    if "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).lstrip("#/").split("/"):
            target = target.get(part, {}) if isinstance(target, dict) else {}
        return _of_schema(target, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            return _of_schema(schema[keyword][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _of_schema(part, root, depth + 1) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_of_schema(schema.get("items", {}), root, depth + 1) for _ in range(int(schema.get("minItems", 0)))]
    simple = {"string": "simulated", "integer": int(schema.get("minimum", 1)), "number": schema.get("minimum", 1.0)}
    return {**simple, "boolean": True, "null": None}.get(kind)


def stop_at(words: list[str], reason: str, stop: Any) -> tuple[list[str], str]:
    """The words up to the first of the texts in `stop`, and the reason: "stop" when one was found."""
    stops = [stop] if isinstance(stop, str) else [item for item in stop or [] if isinstance(item, str)]
    text = ""
    for position, word in enumerate(words):
        text += word
        if any(item and item in text for item in stops):
            cut = min(text.find(item) for item in stops if item in text)
            before = text[: len(text) - len(word)]
            return [*words[:position], text[len(before) : cut] if cut > len(before) else ""], "stop"
    return words, reason

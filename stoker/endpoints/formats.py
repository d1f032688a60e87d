"""The settings as text: .env, shell, Spring, JSON. Pure.

A key stands as ``${VARIABLE}`` unless ``clear`` asks for itself.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import yaml

from stoker.endpoints.endpoint import Endpoint, Endpoints, unique

Format = Literal["env", "sh", "spring", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

#: In the first line of what has comments.
OURS = "Written by `stoker endpoints`"

#: OpenAI's clients refuse to start without any key.
NO_KEY = "unused"

#: What an application that chats begins with; for a person to change. Milliseconds, tokens, and the usual sampling.
_CHAT_DEFAULTS = {"timeout": 180_000, "max-tokens": 1024, "temperature": 0.7, "top-p": 0.9}


def text(found: Endpoints, form: Format, clear: bool = False) -> str:
    """A whole file."""
    return _WRITERS[form](found, clear)


def variables(found: Endpoints, clear: bool) -> Iterator[tuple[str, str]]:
    """Name and value of each environment variable."""
    if found.unified_url:
        yield "UNIFIED_URL", found.unified_url
    taken = {"UNIFIED"}
    for endpoint in sorted(found.endpoints, key=lambda endpoint: not _is_the_embedding(endpoint)):
        prefix = unique(_prefix(endpoint), taken, "_")
        yield f"{prefix}_{'BASE_URL' if endpoint.kind == 'chat' else 'API_BASE'}", endpoint.base_url
        yield f"{prefix}_MODEL", endpoint.model
        yield f"{prefix}_API_KEY", _key(endpoint, clear)


def _is_the_embedding(endpoint: Endpoint) -> bool:
    return endpoint.kind == "embeddings" and endpoint.default


def _prefix(endpoint: Endpoint) -> str:
    """EMBEDDING for the application that knows one embedding model; else the name, as a variable's begins."""
    if _is_the_embedding(endpoint):
        return "EMBEDDING"
    name = endpoint.name.upper().replace("-", "_")
    return f"MODEL_{name}" if name[0].isdigit() else name


def _key(endpoint: Endpoint, clear: bool) -> str:
    if endpoint.key is None:
        return NO_KEY
    return endpoint.key.value if clear else f"${{{endpoint.key.variable}}}"


def _head(found: Endpoints) -> str:
    place = f"containers in the network {found.network} on {found.host}" if found.network else "clients"
    lines = [f"{OURS} for {place}.", *found.notes]
    return "".join(f"# {line}\n" for line in lines)


def _env(found: Endpoints, clear: bool) -> str:
    return _head(found) + "".join(f"{name}={_dotenv(value)}\n" for name, value in variables(found, clear))


def _dotenv(value: str) -> str:
    """Plain wherever possible: `docker run --env-file` takes quotes for a part of the value."""
    if re.fullmatch(r"[A-Za-z0-9_./:@%+=\[\]-]*|\$\{[A-Z_]+\}", value):
        return value
    # As Compose reads it (2.40): between single quotes nothing but the quote is escaped.
    return "'" + value.replace("'", "\\'") + "'"


def _sh(found: Endpoints, clear: bool) -> str:
    return _head(found) + "".join(f"export {name}={_quoted(value)}\n" for name, value in variables(found, clear))


def _quoted(value: str) -> str:
    # An unset key stops a script there, not at the first 401.
    return f'"{value[:-1]}:?}}"' if re.fullmatch(r"\$\{[A-Z_]+\}", value) else shlex.quote(value)


def _spring(found: Endpoints, clear: bool) -> str:
    tree: dict[str, dict[str, object]] = {}
    for endpoint in found.endpoints:
        common = {"model": endpoint.model, "api-key": _key(endpoint, clear)}
        if endpoint.kind == "chat":
            block = {"url": f"{endpoint.base_url}/chat/completions", **common, **_CHAT_DEFAULTS}
        else:
            block = {"api-base": endpoint.base_url, **common}
        tree.setdefault("llm" if endpoint.kind == "chat" else "embedding", {})[endpoint.name] = block
    return _head(found) + yaml.safe_dump(tree, sort_keys=False, width=200)


def _json(found: Endpoints, clear: bool) -> str:
    def entry(endpoint: Endpoint) -> dict[str, object]:
        return {
            "name": endpoint.name,
            "kind": endpoint.kind,
            "default": endpoint.default,
            "model": endpoint.model,
            "base_url": endpoint.base_url,
            "api_key": _key(endpoint, clear),
            **({"dimensions": endpoint.dimensions} if endpoint.dimensions else {}),
        }

    document = {
        "unified_url": found.unified_url,
        "network": found.network,
        "notes": list(found.notes),
        "endpoints": [entry(endpoint) for endpoint in found.endpoints],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_WRITERS: dict[Format, Callable[[Endpoints, bool], str]] = {
    "env": _env,
    "sh": _sh,
    "spring": _spring,
    "json": _json,
}

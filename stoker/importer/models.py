"""Which model a service serves, from what a Compose file says of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stoker.importer.compose import Compose, Service
from stoker.spec.settings import OllamaModel

#: Beginning of a directory's name -> the hub's owner of such models. Only a guess, and told as one.
_OWNERS = (
    ("qwen", "Qwen"),
    ("meta-llama-", "meta-llama"),
    ("llama-", "meta-llama"),
    ("bge-", "BAAI"),
    ("mistral-", "mistralai"),
    ("mixtral-", "mistralai"),
    ("gemma-", "google"),
    ("deepseek-", "deepseek-ai"),
    ("phi-", "microsoft"),
    ("nomic-", "nomic-ai"),
)

#: Embedding models of the Ollama library beside those that are described already: tag and length of the vectors (the library's pages).
OLLAMA = {"nomic-embed-text": OllamaModel(library="nomic-embed-text:v1.5", dimensions=768)}

_PULL = re.compile(r"\bollama (?:pull|run) +([a-z0-9][\w./:-]*)")


def owner_of(directory: str) -> str:
    """Who publishes models of this name; empty when it is not known."""
    return next((owner for start, owner in _OWNERS if directory.lower().startswith(start)), "")


def ollama_model(service: Service, compose: Compose, known: Iterable[str]) -> tuple[str, str]:
    """The model that an Ollama service serves, and by what that is known; both empty if nothing tells.

    ``known``: models whose name, or its first word, is looked for in the names of service, container and project.
    """
    for one in (service, *(other for other in compose.services if other is not service)):
        pulled = _PULL.findall(" ".join(one.words))
        if pulled:
            return str(pulled[-1]), f"{one.name} pulls it"
    told = {
        value
        for one in compose.services
        for name, value in one.environment.items()
        if name in ("EMBEDDING_MODEL", "OLLAMA_MODEL", "OLLAMA_EMBEDDING_MODEL")
    }
    if len(told) == 1:
        return told.pop(), "another service's environment names it"
    names = f"{service.name} {service.container} {compose.project}".lower()
    for model in known:
        if any(word in names for word in (model, model.partition("-")[0])):
            return model, "the names of service, container or project speak of it"
    return "", ""

"""Whose vectors an application has stored: what was deployed last, noted beside the stack's Compose file, and what is described now. Pure.

Vectors of two models cannot be compared, even where they are of one length; of two lengths, a database refuses them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from stoker.engine.registry import engine_of
from stoker.spec.fleet import Host
from stoker.spec.gateway import without_latest
from stoker.spec.stack import Stack

NOTE = "embeddings.json"

#: Model -> length of its vectors; None: the description does not say it.
Vectors = Mapping[str, int | None]


def described(host: Host, stack: Stack) -> Vectors:
    """What a stack's clients may store vectors of: its own instances, and the pools of its gateway."""
    models = host.settings.models
    found: dict[str, int | None] = {}
    for instance in stack.instances:
        if engine_of(instance.engine).kind(instance.arguments) == "embeddings":
            found[without_latest(instance.model)] = models[instance.model].dimensions
    for pool in stack.gateway.pools if stack.gateway else ():
        if pool.kind == "embeddings" and pool.external:
            found[without_latest(pool.model)] = pool.external.dimensions
        elif pool.kind == "embeddings" and pool.model in models:
            found[without_latest(pool.model)] = models[pool.model].dimensions
    return found


def note(vectors: Vectors) -> str:
    return json.dumps(vectors, sort_keys=True) + "\n"


def noted(text: str) -> Vectors:
    """What `note` wrote; nothing where there is none, or another version's."""
    try:
        found = json.loads(text)
        return {str(name): None if size is None else int(size) for name, size in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def change(before: Vectors, now: Vectors) -> str:
    """What becomes of stored vectors, as a sentence; empty when nothing was noted, or nothing that was is gone or differs."""
    gone = {name: size for name, size in before.items() if now and (name not in now or _differ(size, now[name]))}
    new = {name: size for name, size in now.items() if name not in before or name in gone}
    if not gone or not new:
        return ""
    lengths = {*gone.values(), *new.values()}
    if None in lengths:
        words = "vectors of two models cannot be compared"
    elif len(lengths) > 1:
        words = "a database made for the old length refuses the new ones"
    else:
        words = "they are of one length and cannot be compared all the same"
    return f"embeddings were of {_words(gone)} and will be of {_words(new)}: {words}"


def _differ(one: int | None, other: int | None) -> bool:
    """An unknown length may be any."""
    return one is not None and other is not None and one != other


def _words(vectors: Vectors) -> str:
    return ", ".join(
        f"{name} ({'unknown length' if size is None else f'{size} values'})" for name, size in vectors.items()
    )

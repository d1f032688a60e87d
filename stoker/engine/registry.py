"""Every engine that Stoker knows, by the word for it in a description. Modules are read when they are asked for."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import stoker.engines

if TYPE_CHECKING:
    from stoker.engine.engine import Engine


def _word(module: str) -> str:
    return module.replace("_", "-")


#: In alphabetical order.
NAMES: tuple[str, ...] = tuple(sorted(_word(module.name) for module in pkgutil.iter_modules(stoker.engines.__path__)))


@functools.cache
def engine_of(name: str) -> Engine:
    """Raises KeyError for a name that is not in NAMES."""
    if name not in NAMES:
        raise KeyError(name)
    found: Engine = importlib.import_module(f"stoker.engines.{name.replace('-', '_')}").ENGINE
    return found


def engines() -> Iterator[tuple[str, Engine]]:
    return ((name, engine_of(name)) for name in NAMES)

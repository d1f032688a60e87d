"""Where things are inside the engines' containers."""

from __future__ import annotations

from collections.abc import Collection

from stoker.facts.paths import HOST_CACHE, HOST_LOCKS
from stoker.spec.settings import FilesModel

#: The stack's model directory, read-only.
MODEL_DATA = "/model_data"
LOCKS = "/run/stoker/locks"
CACHE = "/var/cache/stoker"
#: Stoker's own programs.
TOOLS = "/stoker"


def cache_directory(uuids: Collection[str]) -> str:
    """The host's directory for what engines on these cards compile: one for each card, the first by name for several.

    vLLM v0.19.1 is not safe for two processes that fill one cache: vllm_compile_cache.py is written in place
    (compilation/backends.py), and the AOT artifact under a name that differs by process id only (compilation/decorators.py),
    which two containers share. Whoever writes here has the first card's lock, so there is one writer at a time. Cards that
    load side by side would find nothing of each other's anyway.
    """
    return f"{HOST_CACHE}/{min(uuids)}"


def directory_of(model: FilesModel) -> str:
    """Inside the container."""
    return f"{MODEL_DATA}/{model.directory}"


def volumes(model_directory: str) -> tuple[str, ...]:
    """The model directory of a stack, for engines that read files."""
    return (f"{model_directory}:{MODEL_DATA}:ro",)


def turn_volumes(stack_root: str, uuids: Collection[str]) -> tuple[str, ...]:
    """What an engine that takes turns needs: our entrypoint, the cards' locks, and what outlives the container of compiled graphs and
    kernels, so that only the first start on a card pays for them."""
    return (f"{stack_root}/bin:{TOOLS}:ro", f"{HOST_LOCKS}:{LOCKS}", f"{cache_directory(uuids)}:{CACHE}")

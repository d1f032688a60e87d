"""The entrypoint of engines that measure a card's free memory when they start: one start at a time on a card (templates/gpu-turn.py)."""

from __future__ import annotations

from stoker.engine.engine import Place
from stoker.engine.mounts import CACHE, LOCKS, TOOLS


def entrypoint(place: Place, health: str, weights: str) -> tuple[str, ...]:
    """The wrapper's words, up to those of the engine itself. The image needs python3.

    ``health``: URL inside the container that answers 200 once the engine serves. ``weights``: the model's files there.
    """
    locks = [word for uuid in place.uuids for word in ("--lock", f"{LOCKS}/{uuid}.lock")]
    # The engine itself gives up, or is ended, after ready_timeout; who still holds the turn long after that will not let go.
    hold = str(2 * place.host.settings.ready_timeout)
    return (
        *("python3", f"{TOOLS}/gpu-turn.py", *locks, "--health", health, "--max-hold", hold),
        *("--weights", weights, "--cache", CACHE, "--"),
    )

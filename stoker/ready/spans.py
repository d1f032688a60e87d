"""How long each phase of a vLLM start took, from the lines of its log and when each was printed."""

from __future__ import annotations

from collections.abc import Iterable

from stoker.ready.phase import Phase
from stoker.ready.vllm_log import vllm_progress


def spans(lines: Iterable[tuple[float, str]]) -> dict[Phase, float]:
    """Seconds of each phase, in order, of the start whose lines these are: (when it was printed, the line).

    A phase lasts from the first line that names it to the first line of a later one. The wait for the GPU is not a part of
    the start. The last phase has no end, and so is not there. ``Phase.SERVING`` begins when the engine is made.
    """
    begun: dict[Phase, float] = {}
    for when, line in lines:
        progress = vllm_progress(line)
        if progress is None:
            continue
        if progress.phase is Phase.WAITING_FOR_GPU or "stoker: GPU lock taken" in line:
            begun = {Phase.STARTING: when}
        elif not begun or progress.phase > max(begun):
            begun[progress.phase] = when
    times = [*begun.values()]
    return {phase: later - when for (phase, when), later in zip(begun.items(), times[1:], strict=False)}

"""The lines of our own entrypoint (templates/gpu-turn.py), which every vLLM container prints first."""

from __future__ import annotations

import re

from stoker.ready.logtext import LogLine
from stoker.ready.phase import Phase, Progress

_START = re.compile(r"^stoker: start, locks ")
_WAITING = re.compile(r"^stoker: waiting for the GPU \(lock [^)]+\)(?: for \d+ s, held by (?P<holder>\S+))?")
_ANSWERS = re.compile(r"^stoker: engine answers, ")
_TAKEN = re.compile(r"^stoker: GPU lock taken after ")


def newest_start(lines: list[LogLine]) -> list[LogLine]:
    """The lines of the newest start only, when the log holds several."""
    for at in range(len(lines) - 1, -1, -1):
        if _START.match(lines[at].text):
            return lines[at:]
    return lines


def turn_progress(line: LogLine) -> Progress | None:
    """Phase of one line of the entrypoint, None for any other line."""
    if waiting := _WAITING.match(line.text):
        return Progress(Phase.WAITING_FOR_GPU, f"{waiting['holder'] or 'another instance of this GPU'} is loading")
    if _TAKEN.match(line.text) or _START.match(line.text):
        return Progress(Phase.STARTING)
    if _ANSWERS.match(line.text):
        return Progress(Phase.SERVING)
    return None

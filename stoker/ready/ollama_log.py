"""Ollama's log: which phase a start is in. Lines as printed by Ollama 0.30 to 0.32 (and, where marked, before)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stoker.ready.logtext import log_lines
from stoker.ready.phase import Phase, Progress

_MARKS: Sequence[tuple[re.Pattern[str], Phase, str]] = (
    (re.compile(r"server config"), Phase.STARTING, "reading settings"),
    (re.compile(r"Listening on "), Phase.STARTING, "looking for GPUs"),
    (re.compile(r"inference compute.*library=cpu", re.IGNORECASE), Phase.SERVING, "no GPU found"),
    (re.compile(r"inference compute"), Phase.SERVING, ""),
    (re.compile(r"vram-based default context"), Phase.SERVING, ""),
    (re.compile(r"loading model via llama-server|starting llama-server|starting runner"), Phase.LOADING, ""),
    # the second wording is that of releases before 0.30
    (
        re.compile(r"waiting for (?:llama-server|server|llama runner) to (?:become available|start responding)"),
        Phase.LOADING,
        "",
    ),
    (re.compile(r"(?:llama-server|llama runner) started in ([\d.]+) seconds"), Phase.SERVING, "model loaded"),
    (re.compile(r'msg="loaded runners"'), Phase.SERVING, "model loaded"),
)


def ollama_progress(log: str) -> Progress | None:
    """The phase that the newest marked line of `log` names, or None when no line names one."""
    for line in reversed(log_lines(log)):
        for pattern, phase, detail in _MARKS:
            if pattern.search(line.text):
                return Progress(phase, detail, line=line.text)
    return None

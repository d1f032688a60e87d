"""Turning what a container printed into lines that can be searched.

Engines print progress bars with carriage returns, colours, and (vLLM since 0.11) the name and pid of the process
that speaks; vLLM's logger adds level, time and place. Patterns are matched against the text without all that; a
person is shown the same text, because that is the part that says something.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# "(EngineCore pid=231) ", "(Worker_TP0 pid=77) ", "(EngineCore_DP0 pid=17374) ": vLLM 0.11 to 0.19.1
_PROCESS = re.compile(r"^\s*\([\w:.-]+ pid=\d+\) ?")
# A bar has no end of line until it is full; what another process prints then follows it in the same line.
_BREAK = re.compile(r"[\r\n]+|(?=\((?:APIServer|EngineCore|Worker)\S* pid=\d+\) )")
# "INFO 04-18 10:11:12 [core.py:105] ": vLLM's formatter; uvicorn's own lines are "INFO:     text"
_VLLM_HEAD = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?")
_UVICORN_HEAD = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL): {2,}")
# time=2026-08-16T00:44:13.439+12:00 level=INFO source=routes.go:1933 msg="server config" ...: Ollama (slog)
_OLLAMA_HEAD = re.compile(r"^time=\S+ level=([A-Z]+)\S* source=\S+ ")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: its text without colour, process and logger prefixes, and its level ("" when it has none)."""

    text: str
    level: str = ""


def _one(raw: str) -> LogLine:
    text = _PROCESS.sub("", raw).rstrip()
    for head in (_VLLM_HEAD, _UVICORN_HEAD, _OLLAMA_HEAD):
        found = head.match(text)
        if found:
            return LogLine(text[found.end() :], "WARNING" if found[1] == "WARN" else found[1])
    return LogLine(text)


def log_lines(log: str) -> list[LogLine]:
    """Split a log into lines of plain text.

    It is split at newlines, at carriage returns and where another process begins to speak; prefixes, control
    characters and empty lines are dropped.
    """
    plain = _ANSI.sub("", log)
    lines = [_one(_UNPRINTABLE.sub("", part)) for part in _BREAK.split(plain)]
    return [line for line in lines if line.text.strip()]


def last_lines(log: str, count: int = 12, width: int = 200) -> tuple[str, ...]:
    """The last `count` lines for a report, each cut to `width` characters."""
    return tuple(
        line.text if len(line.text) <= width else line.text[: width - 1] + "…" for line in log_lines(log)[-count:]
    )

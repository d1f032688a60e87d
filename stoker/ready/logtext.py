"""Turning what a container printed into lines that can be searched.

Engines print progress bars with carriage returns, colours, and (vLLM since 0.11) the name and pid of the process
that speaks; vLLM's logger adds level, time and place; docker logs --timestamps, docker compose logs and the journal
add their own. Patterns are matched against the text without all that; a person is shown the same text, because that
is the part that says something.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# "2026-08-30T12:56:32.123456789Z ", also in brackets; "Aug 19 18:34:30 host vllm[8707]: "; "vllm-1  | ": whoever passed the line on
_CARRIER = re.compile(
    r"^(?:\[?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)\]?|[A-Za-z]{3} [ \d]\d \d\d:\d\d:\d\d \S+ \S+\[\d+\]:|[\w.-]+ +\|) ?"
)
# "(EngineCore pid=231) ", "(Worker_TP0 pid=77) ", "(EngineCore_0 pid=6) (VllmWorker TP0 pid=7) ", "[rank0]: ": vLLM 0.5 to 0.33
_PROCESS = re.compile(r"^\s*(?:\((?:[\w:.=-]+ )+pid=\d+\)|\[rank\d+\]:|\[Stage-\d+\]) ?")
# A bar has no end of line until it is full; what another process prints then follows it in the same line.
_BREAK = re.compile(r"[\r\n]+|(?=\((?:APIServer|EngineCore|Worker)\S* pid=\d+\) )")
# "INFO 04-18 10:11:12 [core.py:105] ", before 0.7 "INFO 04-18 10:11:12 core.py:105] ": vLLM's formatter; uvicorn's own lines are "INFO:     text"
_VLLM_HEAD = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]*\]|[\w./]+:\d+\]) ?")
_UVICORN_HEAD = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL): {2,}")
# time=2026-08-16T00:44:13.439+12:00 level=INFO source=routes.go:1933 msg="server config" ...: Ollama (slog)
_OLLAMA_HEAD = re.compile(r"^time=\S+ level=([A-Z]+)\S* source=\S+ ")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: its text without colour, process and logger prefixes, and its level ("" when it has none)."""

    text: str
    level: str = ""


def _one(raw: str) -> LogLine:
    text = _CARRIER.sub("", raw)
    while found := _PROCESS.match(text):
        text = text[found.end() :]
    text = text.rstrip()
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


def last_lines(log: str, count: int = 20, width: int = 200) -> tuple[str, ...]:
    """The last `count` lines for a report, each cut to `width` characters."""
    return tuple(
        line.text if len(line.text) <= width else line.text[: width - 1] + "…" for line in log_lines(log)[-count:]
    )

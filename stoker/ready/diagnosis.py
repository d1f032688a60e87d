"""Finding the reason of a failure in what was printed: the catalogue is data, this is the little that reads it.

The rule is "the first cause wins": an engine's log ends with consequences ("Engine core initialization failed. See
root cause above."), so lines are tried from the top and consequences are in no table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stoker.ready.failure import Failure
from stoker.ready.failures_host import HOST_FAILURES
from stoker.ready.failures_ollama import OLLAMA_FAILURES
from stoker.ready.failures_vllm import VLLM_FAILURES
from stoker.ready.logtext import LogLine, log_lines

TROUBLESHOOTING = "docs/troubleshooting.md"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an instance does not serve. `id` is the row's name and the anchor in docs/troubleshooting.md."""

    id: str
    cause: str
    remedy: str
    evidence: str = ""
    heals: bool = field(default=False, compare=False)

    @property
    def brief(self) -> str:
        """For one line of the view: the cause, or what was printed when the cause is unknown."""
        return self.evidence if self.id == UNKNOWN and self.evidence else self.cause

    @property
    def anchor(self) -> str:
        return f"{TROUBLESHOOTING}#{self.id}"


UNKNOWN = "unknown-failure"

# Consequences: never the cause, and never quoted as the first error.
_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|EngineCore failed to start|EngineCore encountered a fatal error|"
    r"EngineDeadError|See root cause above|WorkerProc (?:initialization )?failed|"
    r"Parent process exited|resource_tracker|Process EngineCore\S*:$"
)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w]*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?:: .+|$)|^panic: |^fatal error: "
)
_ERROR_WORD = re.compile(r"^(?:error|fatal|cannot|could not)\b", re.IGNORECASE)


_CATALOGUES: Mapping[str, Sequence[Failure]] = {
    "vllm": (*VLLM_FAILURES, *HOST_FAILURES),
    "ollama": (*OLLAMA_FAILURES, *HOST_FAILURES),
}


def _catalogue(engine: str) -> Sequence[Failure]:
    return _CATALOGUES.get(engine, HOST_FAILURES)


def _told(failure: Failure, found: re.Match[str], line: str) -> Diagnosis:
    values = {name: value or "" for name, value in found.groupdict().items()}
    if failure.numbers:
        values.update(failure.numbers(values))
    return Diagnosis(
        failure.id,
        failure.cause.format_map(values),
        failure.remedy.format_map(values),
        evidence=_shortened(line, found),
        heals=failure.heals,
    )


def _shortened(line: str, found: re.Match[str], width: int = 400) -> str:
    if len(line) <= width:
        return line
    begin = max(0, min(found.start() - 40, len(line) - width))
    return ("…" if begin else "") + line[begin : begin + width] + "…"


def diagnose(engine: str, lines: Sequence[LogLine]) -> Diagnosis | None:
    """The first root cause that `lines` name.

    Returns the row of the first matching line; without one, the first exception as an unknown failure; without one,
    the first matching hint; without one, the first line that is an error; None when there is no error at all.
    """
    rows = _catalogue(engine)
    causes = [row for row in rows if not row.sign]
    return (
        _first_match(causes, lines)
        or _first_exception(rows, lines)
        or _first_match(rows, lines)
        or _first_error_line(lines)
    )


def _first_match(rows: Sequence[Failure], lines: Sequence[LogLine]) -> Diagnosis | None:
    for line in lines:
        for row in rows:
            if found := row.pattern.search(line.text):
                return _told(row, found, line.text)
    return None


def diagnose_text(engine: str, text: str) -> Diagnosis | None:
    """`diagnose` for text that is not a log: an error of Docker, the body of an HTTP answer."""
    return diagnose(engine, log_lines(text))


def _first_exception(rows: Sequence[Failure], lines: Sequence[LogLine]) -> Diagnosis | None:
    for line in lines:
        if _EXCEPTION.match(line.text) and not _CONSEQUENCE.search(line.text):
            return _first_match(rows, [line]) or _unknown(line)
    return None


def _first_error_line(lines: Sequence[LogLine]) -> Diagnosis | None:
    for line in lines:
        logged = line.level in ("ERROR", "CRITICAL") and not line.text.startswith(("Traceback", " "))
        if (logged or _ERROR_WORD.match(line.text)) and not _CONSEQUENCE.search(line.text):
            return _unknown(line)
    return None


def _unknown(line: LogLine) -> Diagnosis:
    return Diagnosis(
        UNKNOWN,
        "the cause is not in Stoker's catalogue; this is the first error that was printed",
        "read the lines above it in the container's log",
        evidence=line.text[:400],
    )

"""Finding the reason of a failure in what was printed: the catalogue is data, this is the little that reads it.

The rule is "the first cause wins": an engine's log ends with consequences ("Engine core initialization failed. See
root cause above."), so lines are tried from the top, and consequences only when nothing else says anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from stoker.engine.registry import NAMES, engine_of
from stoker.ready.failure import NOTHING, Clues, Failure, Known, release_of
from stoker.ready.failures_gpu import GPU_FAILURES
from stoker.ready.failures_host import HOST_FAILURES
from stoker.ready.logtext import LogLine, log_lines
from stoker.ready.shown_line import without_secrets

TROUBLESHOOTING = "docs/troubleshooting.md"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an instance does not serve. `id` is the row's name and the anchor in docs/troubleshooting.md."""

    id: str
    cause: str
    remedy: str
    evidence: str = ""
    heals: bool = field(default=False, compare=False)
    #: Starts that succeed print this, too.
    hint: bool = field(default=False, compare=False)

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
    r"Engine core initialization failed|EngineCore failed to start|EngineCore (?:encountered|hit) an? |EngineDeadError|"
    r"See (?:root cause above|stack trace)|WorkerProc (?:initialization )?(?:failed|hit an exception)|Worker failed with error|"
    r"AsyncLLM output_handler failed|AsyncEngineDeadError|Engine (?:process failed to start|loop is not running|background task failed)|"
    r"RPCServer process died|Got fatal signal from worker|Failed core proc|Executor failed|"
    r"Parent process exited|resource_tracker|Process EngineCore\S*:$|ChildFailedError|ProcessExitedException"
)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w]*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?:: .+|$)|^panic: |^fatal error: "
)
# pydantic tells on the next line what it does not like; vLLM checks its settings with it
_VALIDATION = re.compile(r"^\S*ValidationError: \d+ validation errors? for ")
_REASON = re.compile(r"^\s+(?:Value error, |Assertion failed, )?(?P<why>.+?)(?: \[type=.*)?$")
_ERROR_WORD = re.compile(r"^(?:error|fatal|cannot|could not)\b", re.IGNORECASE)

# A traceback indents the code that it quotes by four.
_CODE = "    "
_QUIET = ("DEBUG", "INFO", "WARNING")

_EVERYWHERE = (*GPU_FAILURES, *HOST_FAILURES)


def catalogue(engine: str) -> Sequence[Failure]:
    """The rows for an engine; for anything else (Docker's own messages) those of the host."""
    return (*(engine_of(engine).failures if engine in NAMES else ()), *_EVERYWHERE)


def _for_release(engine: str, version: str) -> Sequence[Failure]:
    """The rows, first those that the release prints. The others stay: a range names only releases that were looked at."""
    return sorted(catalogue(engine), key=lambda row: not row.is_of(version))


def diagnose(engine: str, lines: Sequence[LogLine], known: Known = NOTHING) -> Diagnosis | None:
    """The first root cause that `lines` name.

    Returns the row of the first matching line; without one, the first exception as an unknown failure; without one,
    the first matching hint (vLLM's warnings count as hints: many starts that succeed print some); without one, the first
    line that is an error; None when there is no error at all. `known` makes numbers exact and chooses among rows of one text.
    What looks like a secret in the lines is not in the diagnosis.
    """
    found = _first(engine, lines, known)
    return found and replace(
        found,
        cause=without_secrets(found.cause),
        remedy=without_secrets(found.remedy),
        evidence=without_secrets(found.evidence),
    )


def _first(engine: str, lines: Sequence[LogLine], known: Known) -> Diagnosis | None:
    rows = _for_release(engine, release_of(engine, known.image))
    causes = [row for row in rows if not (row.sign or row.ordinary)]
    clues = Clues(lines, known)
    loud = (
        lines
        if engine in NAMES and not engine_of(engine).has_levels
        else [line for line in lines if line.level not in _QUIET]
    )
    told = [line for line in lines if _tells(line)]
    return (
        _first_match(causes, filter(_tells, loud), clues)
        or _first_exception(rows, clues)
        or _first_match([row for row in rows if row.sign], told, clues)
        # The line that says it may be cut off; a consequence sometimes repeats it, and the code that raised it names it.
        or _first_match(causes, loud, clues)
        or _first_match(rows, told, clues)
        or _first_error_line(told)
    )


def _tells(line: LogLine) -> bool:
    """Whether it can name a cause: it is no consequence, and not the code that a traceback quotes."""
    return not line.text.startswith(_CODE) and not _CONSEQUENCE.search(line.text)


def diagnose_text(engine: str, text: str, known: Known = NOTHING) -> Diagnosis | None:
    """`diagnose` for text that is not a log: an error of Docker, the body of an HTTP answer."""
    return diagnose(engine, log_lines(text), known)


def _first_match(rows: Sequence[Failure], lines: Iterable[LogLine], clues: Clues) -> Diagnosis | None:
    for line in lines:
        for row in rows:
            if found := row.pattern.search(line.text):
                return _told(row, found, line.text.strip(), clues)
    return None


def _told(failure: Failure, found: re.Match[str], line: str, clues: Clues) -> Diagnosis:
    values = {name: value or "" for name, value in found.groupdict().items()}
    if failure.numbers:
        values.update(failure.numbers(values, clues))
    return Diagnosis(
        failure.id,
        failure.cause.format_map(values),
        failure.remedy.format_map(values),
        evidence=_shortened(line, found),
        heals=failure.heals,
        hint=failure.ordinary,
    )


def _shortened(line: str, found: re.Match[str], width: int = 400) -> str:
    if len(line) <= width:
        return line
    begin = max(0, min(found.start() - 40, len(line) - width))
    return ("…" if begin else "") + line[begin : begin + width] + "…"


def _first_exception(rows: Sequence[Failure], clues: Clues) -> Diagnosis | None:
    for at, line in enumerate(clues.lines):
        if _EXCEPTION.match(line.text) and _tells(line):
            return _first_match(rows, [line], clues) or _unknown(_with_words(clues.lines, at))
    return None


def _with_words(lines: Sequence[LogLine], at: int) -> str:
    """What an exception says. Some say it in the line after, and one without words is told by the code that raised it."""
    text = lines[at].text
    if _VALIDATION.match(text) and at + 1 < len(lines) and (why := _REASON.match(lines[at + 1].text)):
        return why["why"]
    if ":" not in text:
        code = next((line.text.strip() for line in reversed(lines[:at]) if line.text.strip(" ^~")), "")
        return f"{text}: {code}" if code else text
    return text


def _first_error_line(lines: Iterable[LogLine]) -> Diagnosis | None:
    for line in lines:
        logged = line.level in ("ERROR", "CRITICAL") and not line.text.startswith(("Traceback", " "))
        if logged or _ERROR_WORD.match(line.text):
            return _unknown(line.text)
    return None


def _unknown(text: str) -> Diagnosis:
    return Diagnosis(
        UNKNOWN,
        "unknown: Stoker's catalogue does not have it; the first error that was printed follows",
        "read the log from that error on; what stands before it usually tells why",
        evidence=text[:400],
    )

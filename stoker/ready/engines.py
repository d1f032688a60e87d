"""What an engine's log says, by the engine's own module. Another word than an engine's (Docker's own messages) has only the rows of hosts."""

from __future__ import annotations

from stoker.engine.registry import NAMES, engine_of
from stoker.ready.diagnosis import Diagnosis, diagnose_text
from stoker.ready.failure import NOTHING, Known
from stoker.ready.phase import Phase, Progress


def engine_progress(engine: str, log: str) -> Progress | None:
    """The phase that a log names, None when it names none (or the engine's log is not known)."""
    return engine_of(engine).progress(log) if engine in NAMES else None


def engine_phases(engine: str, log: str) -> tuple[Phase, ...]:
    """Every phase that the newest start in a log names; none for engines that name one, so that none could have passed unseen."""
    return engine_of(engine).phases(log) if engine in NAMES else ()


def engine_is_doomed(engine: str, log: str) -> bool:
    """Does a log of an engine that still runs say that it cannot become ready any more?"""
    return engine in NAMES and engine_of(engine).is_doomed(log)


def engine_diagnosis(engine: str, log: str, known: Known = NOTHING) -> Diagnosis | None:
    """The first root cause in a log, None when there is no error in it."""
    return diagnose_text(engine, log, known)

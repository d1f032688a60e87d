"""The log parsers by engine."""

from __future__ import annotations

from stoker.ready.diagnosis import Diagnosis, diagnose_text
from stoker.ready.failure import NOTHING, Known
from stoker.ready.ollama_log import ollama_diagnosis, ollama_progress
from stoker.ready.phase import Phase, Progress
from stoker.ready.vllm_log import vllm_diagnosis, vllm_is_doomed, vllm_phases, vllm_progress


def engine_progress(engine: str, log: str) -> Progress | None:
    """The phase that a log names, None when it names none (or the engine's log is not known)."""
    match engine:
        case "vllm":
            return vllm_progress(log)
        case "ollama":
            return ollama_progress(log)
    return None


def engine_phases(engine: str, log: str) -> tuple[Phase, ...]:
    """Every phase that the newest start in a log names. Ollama names one, so there is none that it could have passed unseen."""
    return vllm_phases(log) if engine == "vllm" else ()


def engine_is_doomed(engine: str, log: str) -> bool:
    """Does a log of an engine that still runs say that it cannot become ready any more? Ollama ends at once in such a case."""
    return engine == "vllm" and vllm_is_doomed(log)


def engine_diagnosis(engine: str, log: str, known: Known = NOTHING) -> Diagnosis | None:
    """The first root cause in a log, None when there is no error in it."""
    match engine:
        case "vllm":
            return vllm_diagnosis(log, known)
        case "ollama":
            return ollama_diagnosis(log, known)
    return diagnose_text(engine, log, known)

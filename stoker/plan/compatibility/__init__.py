"""Will this image run this model on this card? Facts as rows of one table, each with its source. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.plan.compatibility.image import EngineVersion, engine_version
from stoker.plan.compatibility.row import Question, Row, Verdict
from stoker.plan.compatibility.table import all_rows

__all__ = ["Answer", "EngineVersion", "Question", "answers", "engine_version"]

_ORDER: tuple[Verdict, ...] = ("refuse", "warn", "note")


@dataclass(frozen=True)
class Answer:
    """One thing that speaks against it, or is good to know."""

    verdict: Verdict
    reason: str
    remedy: str
    source: str
    anchor: str  #: section of docs/troubleshooting.md
    row: str  #: name of the row in the table


def answers(question: Question) -> list[Answer]:
    """Every row that holds, the worst first. Empty: nothing that is known speaks against it."""
    version = engine_version(question.image, question.engine)
    found = [_answer(row, question, version) for row in all_rows() if row.holds(question, version)]
    return sorted(found, key=lambda answer: _ORDER.index(answer.verdict))


def _answer(row: Row, question: Question, version: EngineVersion) -> Answer:
    capability = ".".join(map(str, question.compute_capability or ())) or "unknown"
    words = {
        "card": question.card,
        "capability": capability,
        "image": question.image,
        "version": version.version,
        "driver": question.driver,
        "value": row.value(question),
        "assumed": version.assumed,
    }
    verdict, reason = row.verdict, row.reason.format(**words)
    if verdict == "refuse" and not row.certain(version):
        # Another version, or a build of somebody else, may well do it.
        verdict = "warn"
        why = version.assumed or "the image is a third party's"
        reason = f"{reason} (not certain: {why})"
    return Answer(verdict, reason, row.remedy.format(**words), row.source, row.anchor, row.name)

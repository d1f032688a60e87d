"""All checks of one host, in the order in which a person reads them: the preflight's, then those of a running system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from stoker.doctor import cards, containers, disks, engines, keys
from stoker.doctor.drift import drift, settled
from stoker.doctor.look import Line, LiveCheck, LiveLook, Verdict
from stoker.plan.finding import Finding
from stoker.plan.preflight import CHECKS, findings

#: Name -> check. Whoever runs the fixes from top to bottom runs them in the right order: what a deploy would wait for in vain comes
#: before the fixes that are a deploy.
LIVE_CHECKS: Mapping[str, LiveCheck] = {
    "room on disks": disks.room,
    "persistence mode": cards.persistence,
    "card memory held": cards.held,
    "cards in containers": cards.in_containers,
    "Ollama on the GPU": cards.ollama,
    "engines answer": engines.answers,
    "containers run": containers.runs,
    "repository keys": keys.end,
}

CONNECTION, DRIFT = "connection", "as deployed"


@dataclass(frozen=True)
class Result:
    """One line of the doctor: a check of a host that is well, or one thing that it found."""

    host: str
    name: str
    verdict: Verdict
    detail: str
    fix: str


def examine(look: LiveLook) -> list[Result]:
    """Everything about a host that answered."""
    said = findings(look.host, settled(look.state), look.now, cards=look.cards, environment=os.environ)
    if look.state.uid < 0:
        return [Result(look.host.name, one.check or CONNECTION, "unknown", one.reason, one.remedy) for one in said]
    found = [Result(look.host.name, CONNECTION, "ok", "", "")]
    for name in dict.fromkeys([*CHECKS, *(one.check for one in said)]):
        found += [_of(look, name, line) for line in _preflight([one for one in said if one.check == name])]
    for name, check in LIVE_CHECKS.items():
        found += [_of(look, name, line) for line in check(look)]
    if not any(one.severity == "refuse" for one in said):
        found += [_of(look, DRIFT, line) for line in drift(look)]
    return found


def _preflight(said: list[Finding]) -> list[Line]:
    """The lines of one check of the preflight. A note is worth knowing, and all is well."""
    against = [Line("finding", _with_instance(one), one.remedy) for one in said if one.severity != "note"]
    return against or [Line("ok", "; ".join(map(_with_instance, said)))]


def _with_instance(finding: Finding) -> str:
    return f"{finding.instance}: {finding.reason}" if finding.instance else finding.reason


def _of(look: LiveLook, name: str, line: Line) -> Result:
    return Result(look.host.name, name, line.verdict, line.detail, line.fix)

"""One thing that speaks against a deploy, or that a person should know before one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

#: ``refuse``: nothing is touched on any host. ``warn``: it may go wrong. ``note``: worth knowing, nothing to do.
Severity = Literal["refuse", "warn", "note"]


@dataclass(frozen=True)
class Finding:
    """What, where, why, and what to do about it."""

    host: str
    reason: str
    remedy: str
    anchor: str = ""  #: section of docs/troubleshooting.md
    severity: Severity = "refuse"
    check: str = ""  #: name of the check that found it
    instance: str = ""  #: where it concerns one instance

    def __str__(self) -> str:
        who = f"{self.host}, {self.instance}" if self.instance else self.host
        remedy = f"\n    remedy: {self.remedy}" if self.remedy else ""
        more = f"\n    more:   docs/troubleshooting.md#{self.anchor}" if self.anchor else ""
        return f"{who}: {self.reason}{remedy}{more}"


def refusals(found: Mapping[str, Sequence[Finding]]) -> dict[str, list[Finding]]:
    """Host -> what stops the fleet; hosts without any are left out."""
    stopping = {host: [one for one in findings if one.severity == "refuse"] for host, findings in found.items()}
    return {host: findings for host, findings in stopping.items() if findings}


def warnings(found: Iterable[Finding]) -> list[Finding]:
    """What is said and does not stop anything."""
    return [one for one in found if one.severity != "refuse"]

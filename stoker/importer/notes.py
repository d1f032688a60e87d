"""What an import did with what it found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

#: corrected: it would not have worked, or not well. assumed: the file does not say it. left out: a description cannot say it.
#: open: a deploy would refuse it, or warn, or it lets somebody in whom the files kept out.
Kind = Literal["corrected", "assumed", "left out", "open"]

TITLES: dict[Kind, str] = {
    "corrected": "Corrected",
    "assumed": "Assumed, because the files do not say it; look at each",
    "left out": "Left out",
    "open": "To be decided: a deploy would refuse this, or warn, or it lets somebody in whom the files kept out",
}


@dataclass(frozen=True)
class Note:
    """One thing, of one service. ``service`` is empty for a file as a whole."""

    kind: Kind
    what: str
    why: str
    service: str = ""


@dataclass
class Notes:
    """Collected while an import goes on."""

    found: list[Note] = field(default_factory=list)

    def corrected(self, service: str, what: str, why: str) -> None:
        self.found.append(Note("corrected", what, why, service))

    def assumed(self, service: str, what: str, why: str) -> None:
        self.found.append(Note("assumed", what, why, service))

    def left_out(self, service: str, what: str, why: str) -> None:
        self.found.append(Note("left out", what, why, service))

    def open(self, service: str, what: str, why: str) -> None:
        self.found.append(Note("open", what, why, service))

    def lines(self) -> list[str]:
        return [*lines(self.found)]


def lines(found: Iterable[Note]) -> Iterator[str]:
    """By kind; the same of several services once, with their names."""
    groups: dict[tuple[Kind, str, str], list[str]] = {}
    for note in found:
        names = groups.setdefault((note.kind, note.what, note.why), [])
        if note.service and note.service not in names:
            names.append(note.service)
    for kind, title in TITLES.items():
        of_kind = [(what, why, names) for (one, what, why), names in groups.items() if one == kind]
        if of_kind:
            yield title
        for what, why, names in of_kind:
            yield f"  {what}" + (f" ({', '.join(names)})" if names else "")
            yield f"      {why}"

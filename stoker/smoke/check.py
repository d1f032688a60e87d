"""What a check is and what it leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["pass", "fail", "skip"]


class CheckFailed(Exception):
    """The fleet does not do what it should."""

    def __init__(self, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"expected {expected}; found {found}")
        self.expected = expected
        self.found = found
        self.remedy = remedy


class CheckSkipped(Exception):
    """The check makes no sense here, or nothing can be said before another failure is repaired."""


@dataclass
class Trace:
    """What a check leaves behind while it runs, so that a person can repeat it."""

    #: Command lines to paste.
    commands: list[str] = field(default_factory=list)
    #: The gateway's X-Request-ID of each answer: its log tells which member gave the answer.
    request_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """One thing to prove. ``run`` returns in a few words what it found, or raises CheckFailed or CheckSkipped."""

    name: str
    host: str
    #: Container (or card) that the check is about.
    subject: str
    run: Callable[[Trace], str] = field(repr=False, compare=False)
    #: Runs when all other checks have ended: it looks at what they left.
    afterwards: bool = False
    #: The gateway that the requests go through: host and container.
    gateway: tuple[str, str] | None = None

    @property
    def id(self) -> str:
        return f"{self.host}/{self.subject}/{self.name}"


@dataclass(frozen=True)
class Result:
    """How a check ended."""

    check: Check
    status: Status
    seconds: float
    #: What was found (pass), what is wrong (fail), why not (skip); one line.
    summary: str
    commands: tuple[str, ...] = ()
    expected: str = ""
    #: In full, several lines.
    found: str = ""
    remedy: str = ""
    request_ids: tuple[str, ...] = ()

"""What the wait found out about one instance."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from stoker.ready.diagnosis import UNKNOWN, Diagnosis
from stoker.ready.phase import Phase, Progress
from stoker.ready.target import Target

LINES_WITH_A_CAUSE = 12  #: of the log, in the report of a known failure; an unknown one shows all that were kept


class Verdict(enum.Enum):
    READY = "ready"
    PULLED = "pulled"  # an image, which is waited for before there is an instance
    FAILED = "failed"
    TIMED_OUT = "timed out"
    BLOCKED = "blocked"  # its turn on the GPU never came, because a neighbour failed
    UNREACHABLE = "host out of reach"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`seconds` from the begin of the wait to the verdict; `progress` is where it stood then.

    `lines` are the last of the container's log.
    """

    target: Target
    verdict: Verdict
    seconds: float
    progress: Progress
    diagnosis: Diagnosis | None = None
    lines: tuple[str, ...] = ()
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.verdict is Verdict.READY

    def report(self) -> str:
        """For a person: one line when it is ready, else cause, evidence, remedy, last log lines, where to read on."""
        target = self.target
        head = f"{target.host}: {target.name} {self.verdict.value} after {self.seconds:.1f} s"
        if self.ok:
            return f"{head} ({self.note})" if self.note else head
        rows = [f"{head}, while {self.progress.text}"]
        found = self.diagnosis
        if found:
            rows.append(f"  cause    {found.cause}")
            if found.evidence:
                rows.append(f"  printed  {found.evidence}")
            rows += [f"  remedy   {found.remedy}", f"  more     {found.anchor}"]
        if self.note:
            rows.append(f"  note     {self.note}")
        lines = self.lines if found is None or found.id == UNKNOWN else self.lines[-LINES_WITH_A_CAUSE:]
        if lines:
            rows.append(f"  last lines of {target.container}:")
            rows += [f"    {line}" for line in lines]
        if self.progress.phase is not Phase.NO_CONTAINER and self.verdict is not Verdict.INTERRUPTED:
            rows.append(f"  the whole log: stoker logs {target.name}")
            rows.append(f"  the same on {target.host}: docker logs --tail 500 {target.container}")
        return "\n".join(rows)

"""How long an engine may take."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.ready.diagnosis import Diagnosis
from stoker.spec.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of one start, from its turn on the GPU on: `ceiling` however it gets on, `stall` without any progress.

    Progress is a new phase or percent, another line of the log that tells one, or memory that fills.
    """

    ceiling_seconds: float = 1800.0
    stall_seconds: float = 600.0

    def over(self) -> Diagnosis:
        return Diagnosis(
            "time-limit",
            f"no answer within {self.ceiling_seconds:.0f} s of its start",
            "see in the log below whether it still gets on; if so, `stoker wait` goes on waiting (a higher `ready_timeout` in group_data "
            "starts the engines anew)",
        )

    def stalled(self, seconds: float, line: str) -> Diagnosis:
        return Diagnosis(
            "no-progress",
            f"no progress for {seconds:.0f} s: no new phase, no line of the log that tells one, no change of the card's memory",
            "look whether disk or processor work on the host (iostat -x 1, top); if so, raise `ready_stall_timeout` in group_data and run "
            "`stoker wait`; if not, restart the container",
            line,
        )


DEFAULT = Limits()


def limits_of(settings: Settings) -> Limits:
    return Limits(settings.ready_timeout, settings.ready_stall_timeout)

"""Readiness: wait until every instance has given a real answer, show how far each is, and say why one is not.

The parts: `target`, `question` and `warm_up` (what is waited for, the real requests and their check), `probe` (one look at a host,
a POSIX sh script, and the reading of its output), `watch` (one instance's way to a verdict), `wait` (the loop),
`board` (the view), `stamp` (the note on the host that a start is proven), `vllm_log` and `ollama_log` (log to
phase), `failure`, `failures_*` and `diagnosis` (log to cause and remedy), `death` (the same for a container's end). Only `wait.wait_ready` touches a host, through the
function it is given.
"""

from stoker.ready.board import Board
from stoker.ready.diagnosis import Diagnosis
from stoker.ready.outcome import Outcome, Verdict
from stoker.ready.phase import Phase, Progress
from stoker.ready.stamp import is_proven
from stoker.ready.target import Target
from stoker.ready.wait import ConnectionLost, RunResult, wait_ready

__all__ = [
    "Board",
    "ConnectionLost",
    "Diagnosis",
    "Outcome",
    "Phase",
    "Progress",
    "RunResult",
    "Target",
    "Verdict",
    "is_proven",
    "wait_ready",
]

"""Instances started anew, one at a time, without a lost request where the pool has another member.

The order of starts on a GPU is kept by the containers themselves (templates/gpu-turn.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stoker.operate.interrupts import INTERRUPTED
from stoker.operate.places import Place
from stoker.ready import Outcome
from stoker.run import drain
from stoker.run.drain import Run, Task
from stoker.smoke.ssh import AccessError
from stoker.spec.fleet import Fleet

DONE, FAILED = 0, 1

#: Seconds for a gateway to find an instance well that has answered: it looks once a second.
_RETURN_SECONDS = 20.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Step:
    """One instance. ``drained_at``: the gateways at which another member goes on; ``cut``: what is interrupted."""

    place: Place
    drained_at: tuple[Task, ...]
    cut: tuple[str, ...]

    def __str__(self) -> str:
        gateways = ", ".join(map(str, self.drained_at))
        how = f"drained first at {gateways}, where others of its pool go on" if gateways else "not drained first"
        return "\n      ".join([f"{self.place.name} on {self.place.host.name}: {how}", *self.cut])


#: Waits until a started instance has answered.
Ready = Callable[[Place], Outcome]


def planned(fleet: Fleet, place: Place, run: Run) -> Step:
    """Where an instance can be drained, and what is interrupted all the same."""
    drained_at, cut = [], []
    tasks = drain.tasks(fleet, [place.name])
    for task in tasks:
        try:
            members = drain.ask(task, run)
        except AccessError as error:
            cut.append(f"{task} cannot be asked ({error.reason}): what runs through it is cut off")
            continue
        alone = list(drain.emptied(task, members))
        if not alone:
            drained_at.append(task)
            continue
        running = sum(member.in_flight for member in members if member.name in task.names)
        requests = f"{running} request{'s' if running != 1 else ''} of now"
        cut.append(f"{alone[0]} Until it answers again clients get 503, and what runs ({requests}) is cut off")
    if not tasks:
        cut.append("it is in no gateway's pool: what runs there is cut off")
    return Step(place, tuple(drained_at), tuple(cut))


def carry_out(
    steps: Sequence[Step], run: Run, start: Callable[[Place], None], ready: Ready, limit_seconds: float
) -> int:
    """One after the other; the first that fails ends it. Whatever stays drained is said."""
    for step, later in zip(steps, _later(steps), strict=True):
        status = _one(step, run, start, ready, limit_seconds)
        if status != DONE:
            if later:
                print(f"Not restarted: {', '.join(later)}.", file=sys.stderr)
            return status
    return DONE


def _later(steps: Sequence[Step]) -> list[list[str]]:
    return [[step.place.name for step in steps[number + 1 :]] for number in range(len(steps))]


def _one(step: Step, run: Run, start: Callable[[Place], None], ready: Ready, limit_seconds: float) -> int:
    name = step.place.name
    ours: list[Task] = []  # what a person had drained before stays drained
    try:
        ours = [task for task in step.drained_at if not _is_drained(task, run)]
        if step.drained_at:
            status = drain.carry_out(step.drained_at, run, back=False, force=False, limit_seconds=limit_seconds)
            if status != DONE:
                print(f"{name} is not restarted.", file=sys.stderr)
                if status == FAILED:  # drained, but its requests have not ended
                    _back(name, ours, run)
                return FAILED
        print(f"{name}: restarting")
        start(step.place)
        outcome = ready(step.place)
        if not outcome.ok:
            print(outcome.report(), file=sys.stderr)
            _stays(name, ours, "it does not answer")
            return FAILED
        return _back(name, ours, run)
    except AccessError as error:
        print(f"{error.reason}; {error.remedy}", file=sys.stderr)
        _stays(name, ours, "it is not known whether it answers")
        return FAILED
    except KeyboardInterrupt:
        print(f"Interrupted; what {name} has begun goes on there.", file=sys.stderr)
        _stays(name, ours, "it may not answer yet")
        return INTERRUPTED


def _is_drained(task: Task, run: Run) -> bool:
    return all(member.drained for member in drain.ask(task, run) if member.name in task.names)


def _back(name: str, tasks: Sequence[Task], run: Run) -> int:
    """In use again, and found well by the gateways, so that the next one can be spared."""
    if not tasks:
        return DONE
    if drain.carry_out(tasks, run, back=True, force=False, limit_seconds=_RETURN_SECONDS) != DONE:
        _stays(name, tasks, "it could not be brought back")
        return FAILED
    end = time.monotonic() + _RETURN_SECONDS
    while not all(_usable(task, run) for task in tasks):
        if time.monotonic() > end:
            print(
                f"{name} answers, but {', '.join(map(str, tasks))} finds it down; see `stoker status`.", file=sys.stderr
            )
            return FAILED
        time.sleep(_POLL_SECONDS)
    return DONE


def _usable(task: Task, run: Run) -> bool:
    return all(member.usable for member in drain.ask(task, run) if member.name in task.names)


def _stays(name: str, tasks: Sequence[Task], why: str) -> None:
    """Nothing is left drained without a word."""
    if tasks:
        print(
            f"{name} stays drained at {', '.join(map(str, tasks))}: {why}. When it does (`stoker status`): stoker undrain {name}",
            file=sys.stderr,
        )

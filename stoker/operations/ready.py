"""Wait until every instance of a host has given a real answer."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, operation

from stoker.facts.state import HostState
from stoker.operations.converge import lost
from stoker.operations.memory import current, forget, pin
from stoker.operations.shell import shell_on
from stoker.plan.memory_plan import plan_host
from stoker.plan.read_back import logs_script, read_logs, sentence
from stoker.ready.limits import limits_of
from stoker.ready.target import Target
from stoker.ready.wait import RunResult, wait_ready
from stoker.run.interrupt import interrupted
from stoker.run.session import Session
from stoker.spec.fleet import Host
from stoker.steps import driver
from stoker.steps.action import Action
from stoker.steps.informed import informed
from stoker.steps.waiting import unproven


@operation()
def ready(run: Session, host_name: str) -> Generator[Any, None, None]:
    """No change when every container's very start has been proven before and its engine is healthy now."""
    if run.refused(host_name):
        host.noop("refused by the preflight")
        return
    described = run.fleet.host(host_name)
    found = current(host, run.fleet)
    if driver.awaited(described, found):
        host.noop("waits for the driver")
        return
    needs_gpus = described.gpus is not None
    if not lost(found, needs_gpus) and state.is_executing and host_name in run.reloaded:
        found = _bring_back_gpus(described, found, run)
    gone = lost(found, needs_gpus)
    if gone:
        yield FunctionCommand(_gone, (gone,), {})
        return
    # A restart of Docker that is planned will make every start a new one.
    everything = not state.is_executing and host_name in run.interrupted
    waiting = informed(unproven(described, found, run.only, everything), described, run.cards, found)
    if not waiting:
        pin(host)
        host.noop("every model has answered")
        return
    if state.is_executing:
        forget(host)
    else:
        names = ", ".join(target.name for target in waiting)
        run.planned.setdefault(host_name, []).append(
            Action(f"wait until {names} answer{'s' if len(waiting) == 1 else ''}")
        )
    yield FunctionCommand(_wait, (run, waiting, found), {})


def _bring_back_gpus(described: Host, found: HostState, run: Session) -> HostState:
    """Docker or the toolkit was changed in this run, and systemd reloaded: look whether every engine still has its cards.

    With CDI they stay. A container that got them in another way may have lost them, and only a new start brings them back.
    Returns what is true afterwards.
    """
    containers = [
        found.containers[instance.name] for _, instance in described.instances() if instance.name in found.containers
    ]
    names = [shlex.quote(container.name) for container in containers if container.running]
    lines = [f"docker exec {name} nvidia-smi -L >/dev/null 2>&1 || echo {name}" for name in names]
    _, without = shell_on(host)("; ".join([*lines, "true"]))
    if not without:
        return found
    for name in without:
        host.log(f"{name} lost its GPU when systemd reloaded: restarting it", log_func=logger.warning)
    shell_on(host)(f"docker restart {' '.join(map(shlex.quote, without))}")
    forget(host)
    return current(host, run.fleet)


def _gone(state: Any, host: Any, reason: str) -> bool:
    host.log_styled(reason, fg="red", log_func=logger.error)
    return False


def _wait(state: Any, host: Any, run: Session, targets: list[Target], found: HostState) -> bool:
    shell = shell_on(host)

    def execute(script: str) -> RunResult:
        ok, lines = shell(script)
        return RunResult(0 if ok else 1, "\n".join(lines) + "\n")

    limits = limits_of(run.fleet.host(host.name).settings)
    outcomes = wait_ready(execute, targets, run.board, limits=limits, interrupted=interrupted)
    run.outcomes += outcomes
    for outcome in outcomes:
        if not outcome.ok:
            for line in outcome.report().splitlines():
                host.log(line, log_func=logger.error)
    for small, words in _read_back(run, host, found, {outcome.target.name for outcome in outcomes if outcome.ok}):
        host.log(words, log_func=logger.info if small else logger.warning)
    return all(outcome.ok for outcome in outcomes)


def _read_back(run: Session, host: Any, found: HostState, names: set[str]) -> Iterator[tuple[bool, str]]:
    """What the engines' logs say of their memory, beside what was predicted for the cards that were found before."""
    plans = plan_host(run.fleet.host(host.name), run.cards, found).instances
    predicted = {one.name: one.prediction for one in plans if one.prediction and one.name in names}
    if not predicted:
        return
    _, lines = shell_on(host)(logs_script(predicted))
    for name, measured in read_logs("\n".join(lines)).items():
        compared = sentence(name, predicted[name], measured)
        if compared:
            yield compared

"""The operation that every chapter uses: do what a step says is missing, nothing when nothing is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, StringCommand, operation

from stoker.facts.state import HostState
from stoker.operations.jobs import run_long
from stoker.operations.memory import current, forget, pin
from stoker.operations.preflight import against
from stoker.operations.pulling import Pulling, explained
from stoker.operations.shell import say_on, shell_on
from stoker.plan.finding import refusals
from stoker.ready.wait import ConnectionLost
from stoker.run.session import Session
from stoker.steps import driver
from stoker.steps.action import Action

Step = Callable[[HostState], list[Action]]


@operation()
def converge(run: Session, step: Step, needs_gpus: bool = True, reloads: bool = False) -> Generator[Any, None, None]:
    """Run the actions that ``step`` finds missing on this host.

    The step is asked twice, when the run is planned and again right before it is executed, each time with what is true then.
    ``needs_gpus``: the step cannot say anything while the host's cards are not known. ``reloads``: its packages make systemd
    reload, after which the engines' GPUs are looked at.
    """
    if run.refused(host.name):
        host.noop("refused by the preflight")  # it may have no GPUs to reckon with; the barrier ends the run
        return
    found = current(host, run.fleet)
    needs_gpus = needs_gpus and run.fleet.host(host.name).gpus is not None
    if needs_gpus and driver.awaited(run.fleet.host(host.name), found):
        run.unseen.add(host.name)
        host.noop("waits for the driver")
        return
    gone = lost(found, needs_gpus) or (unfit(run, host.name, found) if needs_gpus else "")
    if gone:
        yield FunctionCommand(_call, (Action("look at the host", function=lambda shell, say: gone),), {})
        return
    actions = step(found)
    if not actions:
        pin(host)
        host.noop("as described")
        return
    if reloads:
        run.reloaded.add(host.name)
        if any(action.interrupts for action in actions):
            run.interrupted.add(host.name)
    if not state.is_executing:
        run.planned.setdefault(host.name, []).extend(actions)
    for action in actions:
        if state.is_executing:
            host.log(str(action), log_func=logger.info)
            forget(host)
        yield _command(action, run)


def lost(found: HostState, needs_gpus: bool) -> str:
    """Why nothing can be decided by what was found; empty when it can.

    pyinfra turns a connection that is lost while a fact is gathered into the fact's default, an empty state.
    """
    if found.uid < 0:
        return "the host cannot be reached any more; deploy again when it can"
    if needs_gpus and found.gpu_error:
        return f"its cards are gone: {found.gpu_error}"
    return ""


def unfit(run: Session, host_name: str, found: HostState) -> str:
    """What speaks against a host whose cards were not known when the fleet was judged; empty when nothing does. Asked once."""
    if host_name not in run.unseen or not state.is_executing:
        return ""
    refused = refusals({host_name: against(run, host_name, found)})
    if not refused:
        run.unseen.discard(host_name)
    return "; ".join(f"{refusal.reason} ({refusal.remedy})" for refusal in refused.get(host_name, ()))


def _command(action: Action, run: Session) -> StringCommand | FunctionCommand:
    if action.function is not None:
        return FunctionCommand(_call, (action,), {})
    if action.long:
        return FunctionCommand(_long, (action, run), {})
    return StringCommand("sh -c", shlex.quote(action.script), _stdin=action.stdin or "")


def _call(state: Any, host: Any, action: Action) -> bool:
    """pyinfra looks at the result only of functions that take state and host: False is a failure without a traceback."""
    assert action.function is not None
    try:
        error = action.function(shell_on(host), say_on(host))
    except ConnectionLost as lost_connection:
        error = f"the connection was lost ({lost_connection}); deploy again"
    return _report(host, action, error)


def _long(state: Any, host: Any, action: Action, run: Session) -> bool:
    pulling = Pulling(run.board, host.name, action.image) if action.image else None
    error: str | None = "it did not come to an end"
    try:
        error = run_long(shell_on(host), say_on(host), action, pulling.tell if pulling else None)
    except ConnectionLost as lost_connection:
        error = f"the connection was lost ({lost_connection}); deploy again"
    finally:
        if pulling:
            pulling.end(error)
    return _report(host, action, explained(error) if error and pulling else error)


def _report(host: Any, action: Action, error: str | None) -> bool:
    if error is not None:
        host.log_styled(f"{action.description}: {error}", fg="red", log_func=logger.error)
    return error is None

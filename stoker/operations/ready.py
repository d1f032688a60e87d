"""Wait until every instance of a host has given a real answer."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, operation

from stoker.facts.host_state import current, forget, pin
from stoker.facts.state import HostState
from stoker.operations.shell import shell_on
from stoker.ready.stamp import is_proven
from stoker.ready.target import Target
from stoker.ready.wait import ConnectionLost, RunResult, wait_ready
from stoker.render.compose import services
from stoker.run.interrupt import interrupted
from stoker.run.session import Session
from stoker.spec.fleet import Host
from stoker.spec.settings import OllamaModel
from stoker.steps.action import Action
from stoker.steps.layout import READY
from stoker.steps.stack import container_reason, uuids


@operation()
def ready(run: Session, host_name: str) -> Generator[Any, None, None]:
    """No change when every container's very start has been proven before and its engine is healthy now."""
    if run.refused(host_name):
        host.noop("refused by the preflight")
        return
    described = run.fleet.host(host_name)
    waiting = unproven(described, current(host, run.fleet), run.only)
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
    yield FunctionCommand(_wait, (run, waiting), {})


def unproven(described: Host, found: HostState, only: tuple[str, ...] = ()) -> list[Target]:
    """The instances whose running start has not been proven by a real answer, or which are not healthy now."""
    rendered = {
        service.container: service for stack in described.stacks for service in services(described, stack, uuids(found))
    }
    targets = []
    for _, instance in described.instances():
        if only and instance.name not in only:
            continue
        container = found.containers.get(instance.name)
        stamp = found.contents.get(f"{READY}/{instance.name}", "")
        proven = (
            container is not None
            and container.running
            and not container_reason(rendered[instance.name], found)
            and is_proven(container.id, container.started_at, stamp)
            and found.answers.get(instance.name) == "200"
        )
        if not proven:
            model = described.model_of(instance)
            targets.append(
                Target(
                    host=described.name,
                    name=instance.name,
                    engine=instance.engine,
                    container=instance.name,
                    port=instance.port,
                    model=instance.model,
                    expect_dimensions=model.dimensions if isinstance(model, OllamaModel) else None,
                    gpus=tuple(f"GPU {index}" for index in instance.gpus),
                )
            )
    return targets


def _wait(pyinfra_state: Any, pyinfra_host: Any, run: Session, targets: list[Target]) -> bool:
    shell = shell_on(pyinfra_host)

    def execute(script: str) -> RunResult:
        try:
            ok, lines = shell(script)
        except Exception as error:  # paramiko, gevent and pyinfra each raise their own
            _reconnect(pyinfra_host)
            raise ConnectionLost(str(error)) from error
        return RunResult(0 if ok else 1, "\n".join(lines) + "\n")

    timeout = run.fleet.host(pyinfra_host.name).settings.ready_timeout
    outcomes = wait_ready(execute, targets, run.board, timeout_seconds=timeout, interrupted=interrupted)
    run.outcomes += outcomes
    for outcome in outcomes:
        if not outcome.ok:
            for line in outcome.report().splitlines():
                pyinfra_host.log(line, log_func=logger.error)
    return all(outcome.ok for outcome in outcomes)


def _reconnect(pyinfra_host: Any) -> None:
    """A dropped connection must not end a wait of minutes. Failure is noticed at the next look."""
    pyinfra_host.connected = False
    try:
        pyinfra_host.connect(show_errors=False)
    except Exception:
        return

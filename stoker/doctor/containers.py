"""Containers that do not run or do not stay up."""

from __future__ import annotations

from stoker.doctor.live import End, moment
from stoker.doctor.look import Line, LiveLook, ago
from stoker.facts.state import Container
from stoker.ready.diagnosis import diagnose_text
from stoker.ready.failure import Known
from stoker.ready.stamp import is_proven
from stoker.steps.layout import READY

#: A restarted container that is younger than this, seconds, and has not yet given a real answer counts as one that goes on restarting.
#: Docker waits at most a minute between two starts; a large model takes some minutes to load and fail.
LOOP_SECONDS = 900


def runs(look: LiveLook) -> list[Line]:
    """Every described container is there, runs, and stays up."""
    state = look.state
    if not state.docker_running:
        return [
            Line(
                "finding",
                f"Docker does not answer: {state.docker_error or 'it is not installed'}",
                look.commands.deploy(),
            )
        ]
    engines = {instance.name: instance.engine for _, instance in look.host.instances()}
    names = [name for stack in look.host.stacks for name in stack.containers]
    found = []
    for name in names:
        container = state.containers.get(name)
        if container is None:
            found.append(Line("finding", f"{name} is not there", look.commands.deploy()))
        elif restarts_again_and_again(look, container):
            found.append(Line("finding", _loop(look, container, engines.get(name, "")), look.commands.deploy()))
        elif not container.running:
            found.append(Line("finding", _down(look, container, engines.get(name, "")), look.commands.deploy()))
    return found or [Line("ok", f"{len(names)} run{_restarted(look, names)}")]


def restarts_again_and_again(look: LiveLook, container: Container) -> bool:
    """One look cannot see a number rise; a restarted container that is young and unproven is taken for one that goes on."""
    if container.status == "restarting":
        return True
    age = since(look, container.started_at)
    young = age is not None and age < LOOP_SECONDS
    engine = any(instance.name == container.name for _, instance in look.host.instances())
    return container.running and container.restarts > 0 and young and engine and not proven(look, container)


def proven(look: LiveLook, container: Container) -> bool:
    return is_proven(container.id, container.started_at, look.state.contents.get(f"{READY}/{container.name}", ""))


def _loop(look: LiveLook, container: Container, engine: str) -> str:
    end = look.live.ends.get(container.name)
    code = f", exit code {end.exit_code}" if end and container.status == "restarting" else ""
    when = _ago(look, end.finished_at if end else "")
    times = f"{container.restarts} restart{'s' if container.restarts != 1 else ''}"
    return f"{container.name} restarts again and again: {times}, the last end{when}{code}{_why(look, container, end, engine)}"


def _down(look: LiveLook, container: Container, engine: str) -> str:
    end = look.live.ends.get(container.name)
    if container.status != "exited" or end is None:
        return f"{container.name} does not run: it is {container.status}{_why(look, container, end, engine)}"
    when = _ago(look, end.finished_at)
    return f"{container.name} does not run: it ended{when} with exit code {end.exit_code}{_why(look, container, end, engine)}"


def _why(look: LiveLook, container: Container, end: End | None, engine: str) -> str:
    """What is known of the reason: the kernel's, Docker's, or the first cause that the log names."""
    if end and end.out_of_memory:
        return "; the kernel killed it because the machine's memory was used up"
    if end and end.error:
        return f"; Docker says: {end.error}"
    # An engine that was told to stop has ended by itself or by a signal, and its log names no cause.
    if end and end.exit_code in (0, 137, 143) and container.status == "exited":
        return ""
    log = look.live.logs.get(container.name, "")
    cause = diagnose_text(engine, log, Known(container.image)) if engine else None
    return f"; its log says: {cause.brief} ({cause.remedy})" if cause else ""


def _restarted(look: LiveLook, names: list[str]) -> str:
    """Restarts that are over, for the line that says that all is well."""
    past = []
    for container in (look.state.containers[name] for name in names):
        if container.restarts:
            past.append(
                f"{container.name} restarted {container.restarts} times, the last start{_ago(look, container.started_at)}"
            )
    return f" ({'; '.join(past)})" if past else ""


def since(look: LiveLook, docker_time: str) -> float | None:
    """Seconds by the host's own clock."""
    at = moment(docker_time)
    return None if at is None else max(0.0, look.state.time - at)


def _ago(look: LiveLook, docker_time: str) -> str:
    seconds = since(look, docker_time)
    return "" if seconds is None else f" {ago(seconds)} ago"

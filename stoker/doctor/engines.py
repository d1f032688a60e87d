"""Engines that run and do not answer, or of which nobody knows yet whether they do."""

from __future__ import annotations

from stoker.doctor import cards
from stoker.doctor.containers import proven, restarts_again_and_again, since
from stoker.doctor.look import Line, LiveLook, ago
from stoker.facts.state import Container
from stoker.spec.instance import Instance


def answers(look: LiveLook) -> list[Line]:
    """Every engine that runs is healthy, and this very start has answered a real request."""
    found, well = [], 0
    without_card = {line.instance for line in [*cards.in_containers(look), *cards.ollama(look)] if line.instance}
    for _, instance in look.host.instances():
        container = look.state.containers.get(instance.name)
        if container is None or not container.running or restarts_again_and_again(look, container):
            continue  # said by another check
        if instance.name in without_card:
            continue  # the same, and what mends it proves it
        line = _answer(look, instance, container)
        well += line is None
        found += [line] if line else []
    return found or ([Line("ok", f"{well} healthy and proven by a real answer")] if well else [])


def _answer(look: LiveLook, instance: Instance, container: Container) -> Line | None:
    name, age = instance.name, since(look, container.started_at) or 0.0
    code = look.state.answers.get(name, "000")
    if code != "200":
        said = "does not answer its health check" if code == "000" else f"answers its health check with {code}"
        if age < look.host.settings.ready_timeout and not proven(look, container):
            return Line(
                "finding", f"{name} {said}; it started {ago(age)} ago and may be loading", look.commands.deploy()
            )
        # It answers nobody, so nothing is lost by not waiting for it.
        again = look.commands.restart(name, "-t", "5")
        past = " and has served since" if proven(look, container) else ""
        return Line("finding", f"{name} {said} though it started {ago(age)} ago{past}", again)
    if not proven(look, container):
        return Line(
            "finding", f"{name} is healthy, but this start has not answered a real request yet", look.commands.deploy()
        )
    return None

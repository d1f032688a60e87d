"""Cards: still reached by the containers that have them, kept ready by the driver, and held by nobody who is gone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from stoker.doctor.containers import restarts_again_and_again
from stoker.doctor.look import Line, LiveLook
from stoker.facts.gpus import TIMED_OUT
from stoker.spec.gpu_name import label
from stoker.spec.instance import Instance
from stoker.spec.settings import OllamaModel
from stoker.steps.stack import uuids
from stoker.steps.toolkit import PERSISTENCE

#: docker exec's words for a container that had just ended when it was asked; whether it stays up is another check.
_NOT_UP = re.compile(r"Error response from daemon: .*\b(?:is not running|is restarting|is paused|No such container)")

#: docker exec's exit statuses for a program that cannot be run, and that is not there.
_NO_PROGRAM = (126, 127)


def in_containers(look: LiveLook) -> list[Line]:
    """Every running engine still reaches its cards. A daemon-reload takes them away from containers that do not have them by CDI."""
    if look.state.gpu_error:
        return []  # the check of the driver says it
    by_name, found, well = uuids(look.state), [], 0
    for instance in _running(look):
        seen = look.live.cards_seen.get(instance.name)
        if seen is None or _NOT_UP.search(seen.text):
            continue
        if seen.status == TIMED_OUT:
            detail = f"nvidia-smi in {instance.name} gives no answer"
            found.append(Line("unknown", detail, look.commands.restart(instance.name), instance.name))
        elif seen.status in _NO_PROGRAM:
            detail = f"{instance.name} has no nvidia-smi: {seen.text[:200]}"
            found.append(
                Line("unknown", detail, 'recreate it with "utility" in NVIDIA_DRIVER_CAPABILITIES', instance.name)
            )
        elif lost := [name for name in instance.gpus if by_name.get(name) not in seen.uuids]:
            which = ", ".join(map(label, lost))
            detail = f"{instance.name} lost {which}: nvidia-smi in it says: {seen.text.strip()[:200] or 'nothing'}"
            found.append(Line("finding", detail, look.commands.restart(instance.name), instance.name))
        else:
            well += 1
    return found or ([Line("ok", f"{well} engines reach their cards")] if well else [])


def ollama(look: LiveLook) -> list[Line]:
    """Ollama falls back to the CPU without an error."""
    found, well = [], 0
    for instance in _running(look):
        if not isinstance(look.host.model_of(instance), OllamaModel):
            continue
        name = instance.name
        trouble = _on_cpu(look.live.resident.get(name, ""), look.live.compute_lines.get(name, ""), instance.model)
        if trouble:
            found.append(Line("finding", f"{name} {trouble}", look.commands.restart(name), name))
        else:
            well += 1
    return found or ([Line("ok", f"{well} on the GPU")] if well else [])


def _running(look: LiveLook) -> Iterator[Instance]:
    """Instances with a card whose container stays up; one that does not may have ended while it was asked."""
    for _, instance in look.host.instances():
        container = look.state.containers.get(instance.name)
        if container is None or not container.running or restarts_again_and_again(look, container):
            continue
        if look.host.profile_of(instance).uses_cards:
            yield instance


def _on_cpu(resident: str, compute_line: str, model: str) -> str:
    """What is wrong; empty when it is all on the card, or not loaded with a card found."""
    if "library=cpu" in compute_line:
        return "found no card when it started and serves from the CPU"
    try:
        loaded = json.loads(resident).get("models") or []
    except (ValueError, AttributeError):
        return ""  # it does not answer: another check says so
    for entry in loaded:
        if str(entry.get("name", "")).removesuffix(":latest") != model.removesuffix(":latest"):
            continue
        size, on_card = int(entry.get("size") or 0), int(entry.get("size_vram") or 0)
        if on_card < size or not on_card:
            return f"has {on_card / 1e6:.0f} of {size / 1e6:.0f} MB of {model} on the card; the rest runs on the CPU"
    return ""


def persistence(look: LiveLook) -> list[Line]:
    """Without persistence the driver lets go of a card that nobody uses, and the next start waits seconds for it.

    Where NVIDIA's daemon is installed, its unit is a part of the deploy and drift says that it does not run.
    """
    if look.state.gpu_error or PERSISTENCE in look.state.units:
        return []
    off = [index for index, on in look.live.persistence.items() if not on]
    if off:
        which = ", ".join(f"GPU {index}" for index in off)
        fix = look.commands.there("nvidia-smi", "-pm", "1")
        return [
            Line(
                "finding",
                f"persistence mode is off: {which} (until the next boot by this command; nvidia-persistenced keeps it)",
                fix,
            )
        ]
    return [Line("ok", f"on for {len(look.live.persistence)} cards")] if look.live.persistence else []


def held(look: LiveLook) -> list[Line]:
    """A process of a container that does not run any more keeps its memory on the card, and the next start has too little.

    Processes that are of no container here are the preflight's concern.
    """
    if look.state.gpu_error or not look.state.docker_running:
        return []
    ended = {one.id: one.name for one in look.state.containers.values() if one.status in ("exited", "dead", "created")}
    by_uuid = {gpu.uuid: gpu.index for gpu in look.state.gpus}
    found = []
    for process in look.state.gpu_processes:
        container = ended.get(look.state.gpu_containers.get(process.pid, ""))
        if container:
            size = "memory" if process.used_mib is None else f"{process.used_mib / 1024:.1f} GiB"
            detail = f"process {process.pid} ({process.name}) of {container}, which does not run, holds {size} of GPU {by_uuid.get(process.gpu_uuid, '?')}"
            found.append(Line("finding", detail, look.commands.there("kill", "-9", str(process.pid))))
    return found or [Line("ok", "by no container that has ended")]

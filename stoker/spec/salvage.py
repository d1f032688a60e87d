"""What is left of a description when the parts with errors are taken out.

The rest is still worth a look: a person wants to hear of all errors at once, not of the next one after each correction.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from stoker.spec.explain import closest
from stoker.spec.fleet import HostDescription
from stoker.spec.instance import Instance
from stoker.spec.settings import Settings

#: In the place of required settings that are wrong. Nothing is deployed by them.
_STAND_INS: Mapping[str, object] = {
    "versions": {
        "vllm": "vllm/vllm-openai:v0.19.1",
        "ollama": "ollama/ollama:0.32.15",
        "nginx": "nginx:1.30.6-alpine",
        "docker": "28.5.2",
        "compose": "2.40.3",
        "container_toolkit": "1.20.0-1",
        "driver_branch": 580,
    },
    "models": {},
}

#: In the place of a wrong `gpus`: more cards than any host has, so that no instance is blamed for it.
_ANY_GPUS = {"count": 16, "card": "any", "memory_gib": 1024}


def settings(data: Mapping[str, object], error: ValidationError) -> tuple[Settings, frozenset[str]]:
    """The settings without the wrong ones, and the names of those."""
    wrong = frozenset(str(details["loc"][0]) for details in error.errors())
    sound = {name: value for name, value in data.items() if name not in wrong}
    return Settings.model_validate({**_STAND_INS, **sound}), wrong


def host_description(data: Mapping[str, object], error: ValidationError) -> HostDescription | None:
    """The host's description without the wrong instances and gateways; None when too little is left."""
    left: dict[str, Any] = copy.deepcopy(dict(data))
    beyond_help: dict[Any, set[Any]] = {}
    for details in error.errors():
        match details["loc"]:
            case ("stacks", stack, "instances", instance, *field):
                if not _mend(left["stacks"][stack]["instances"], instance, field):
                    beyond_help.setdefault(stack, set()).add(instance)
            case ("stacks", int(stack), "gateway", *_):
                left["stacks"][stack]["gateway"] = None
            case ("stacks", int(stack), "web_ui", *_):
                left["stacks"][stack]["web_ui"] = None
            case ("gpus", *_):
                left["gpus"] = _ANY_GPUS
            case (name, *_) if name not in HostDescription.model_fields:
                left.pop(str(name), None)
    for stack, numbers in beyond_help.items():
        kept = [entry for number, entry in enumerate(left["stacks"][stack]["instances"]) if number not in numbers]
        left["stacks"][stack]["instances"] = kept
    try:
        return HostDescription.model_validate(left)
    except ValidationError:
        return None


def _mend(instances: Any, number: Any, field: list[Any]) -> bool:
    """Put something harmless in the place of an instance's wrong field; False where nothing is."""
    match field:
        case ["port", *_]:
            instances[number]["port"] = 65535 - number  # no other instance wants it
        case ["service" | "image" | "arguments" | "environment" as name, *_]:
            instances[number].pop(name, None)
        case [str(name)] if name not in Instance.model_fields and closest(name, Instance.model_fields) != "gpus":
            instances[number].pop(name, None)
        case _:
            return False
    return True

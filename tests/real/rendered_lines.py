"""The command line of every vLLM instance of every fleet, as its container gets it."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from support.description import PROJECT, Answer
from support.forked import Call, call
from support.states import KEY

from stoker.engine.mounts import MODEL_DATA
from stoker.render.compose import compose_file
from stoker.spec.fleet import Fleet, Host
from stoker.spec.instance import Instance
from stoker.spec.settings import FilesModel
from stoker.spec.stack import Stack
from stoker.spec.vllm import Argument

Source = tuple[str, tuple[str, ...]]
"""An inventory and the overlays of group data given with it, relative to the checkout."""

INVENTORIES = [
    "inventory.py",
    *sorted(str(path.relative_to(PROJECT)) for path in PROJECT.glob("fleets/*/inventory.py")),
]
OVERLAYS = sorted(str(path.relative_to(PROJECT)) for path in PROJECT.glob("lab/**/group_data"))
SOURCES: list[Source] = [
    (inventory, overlays) for inventory in INVENTORIES for overlays in ((), *((overlay,) for overlay in OVERLAYS))
]

_DEFAULT = ["--served-model-name", "llama3.1-8b", "--dtype", "half", "--gpu-memory-utilization", "0.45"]

#: What must be refused, with words of the reason: the negative control of everything that is accepted.
WRONG: Mapping[str, tuple[list[str], str]] = {
    "task": (["serve", "/model_data/m", *_DEFAULT, "--task=embed"], "--task"),
    "configuration in JSON": (["serve", "/model_data/m", "--config", "x.json"], "must be of a yaml/yml type"),
    "unknown": (["serve", "/model_data/m", *_DEFAULT, "--swap-space", "4"], "unrecognized arguments: --swap-space 4"),
    "type": (["serve", "/model_data/m", *_DEFAULT, "--max-model-len", "long"], "--max-model-len"),
    "choice": (["serve", "/model_data/m", "--dtype", "int8"], "invalid choice: 'int8'"),
    "JSON": (["serve", "/model_data/m", "--default-chat-template-kwargs", "{bad"], "invalid loads value"),
    "validation": (["serve", "/model_data/m", "--enable-auto-tool-choice"], "requires --tool-call-parser"),
    "no model": (["serve", *_DEFAULT], "first positional argument"),
    "two models": (["serve", "/model_data/m", "--model", "/model_data/n"], "unrecognized arguments: /model_data/m"),
}


#: What Stoker adds by itself where it knows the version.
QUIET: dict[str, Argument] = {"disable-access-log-for-endpoints": "/health,/metrics"}


@dataclass(frozen=True)
class Rendered:
    """An instance and its command line."""

    name: str
    line: list[str]  #: as `vllm` gets it: "serve" first
    model: str
    served: str
    arguments: Mapping[str, Argument]
    version: str  #: of its image; empty when the tag is not a plain version


@functools.cache
def rendered(source: Source) -> tuple[Rendered, ...]:
    """The vLLM instances of one inventory."""
    inventory, overlays = source
    label = " ".join([inventory, *(f"with {overlay}" for overlay in overlays)])
    fleet = _load(inventory, overlays)
    return tuple(
        found
        for host in fleet.hosts
        for stack in host.stacks
        for found in _instances(f"{label}: {host.name}", host, stack)
    )


def lines_of_all_fleets() -> dict[str, list[str]]:
    return {instance.name: instance.line for source in SOURCES for instance in rendered(source)}


def _load(inventory: str, overlays: tuple[str, ...]) -> Fleet:
    with tempfile.TemporaryDirectory() as folder:
        # The lab's group data read the fingerprint of the lab's key, which is there after its internet was built. Any key will do here.
        key = Path(folder) / "internet/keys/lab-archive-keyring.asc"
        key.parent.mkdir(parents=True)
        key.write_text(KEY, encoding="ascii")
        environment = {**os.environ, "STOKER_LAB_CACHE": folder}
        read = Call("support.description", "read", (inventory, overlays), cwd=PROJECT, environment=environment)
        answer = call(read).value
    assert isinstance(answer, Answer), inventory
    assert answer.fleet is not None, answer.message or answer.crash
    return answer.fleet


def _instances(label: str, host: Host, stack: Stack) -> Iterator[Rendered]:
    """From the text of the Compose file, so that the template has its say too."""
    text = compose_file(host, stack, {index: f"GPU-{index}" for index in range(host.gpus.count if host.gpus else 0)})
    services = yaml.safe_load(text)["services"]
    for instance in stack.instances:
        if instance.engine == "vllm":
            yield _rendered(label, host, instance, services[instance.service_name])


def _rendered(label: str, host: Host, instance: Instance, service: Mapping[str, list[str]]) -> Rendered:
    entrypoint = service["entrypoint"]
    program, *words = [
        word.replace("$$", "$") for word in entrypoint[entrypoint.index("--") + 1 :] + service["command"]
    ]
    assert program == "vllm", entrypoint
    model = host.model_of(instance)
    assert isinstance(model, FilesModel)
    version = re.fullmatch(r".*:v(\d+(?:\.\d+)+)", host.image_of(instance).partition("@")[0])
    return Rendered(
        name=f"{label} {instance.name}",
        line=words,
        model=f"{MODEL_DATA}/{model.directory}",
        served=instance.model,
        arguments=(QUIET if version else {})
        | {name: value for name, value in instance.arguments.items() if value is not None},
        version=version.group(1) if version else "",
    )

"""The Compose file of a stack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import yaml

from stoker.engine.engine import Place
from stoker.engine.registry import engine_of
from stoker.facts.paths import HOST_GATEWAYS, HOST_SERVICE_KEYS
from stoker.render import gateway_external
from stoker.render.environment import TEMPLATES, render
from stoker.render.gateway import CONFIG_DIRECTORY, STATE_DIRECTORY
from stoker.render.gateway_protection import tls_volume
from stoker.spec.fleet import Host
from stoker.spec.gateway import Gateway
from stoker.spec.gpu_name import GpuName
from stoker.spec.instance import Instance
from stoker.spec.stack import Stack
from stoker.spec.web_ui import CONTAINER_PORT, WebUi


@dataclass(frozen=True)
class Service:
    """One service as the template needs it."""

    name: str
    container: str
    image: str
    engine: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    gpus: tuple[str, ...]  #: UUIDs
    ports: tuple[str, ...]  #: ``on the host:in the container``
    volumes: tuple[str, ...]
    environment: Mapping[str, str]
    healthcheck: tuple[str, ...]
    start_period: int  #: seconds
    stop_grace_seconds: int
    takes_turns: bool = False
    named_volumes: tuple[str, ...] = ()  #: of Docker, among ``volumes``
    shared_memory: str = ""  #: size of /dev/shm in Compose's words; empty: Docker's 64 MiB
    configuration: str = ""  #: hash of everything that needs a new container when it changes


def stack_directory(host: Host, stack: Stack) -> str:
    return f"{host.settings.stack_root}/{stack.project}"


def services(host: Host, stack: Stack, gpu_uuids: Mapping[GpuName, str]) -> list[Service]:
    """The services of a stack, each with the hash that its container will be labelled with.

    ``gpu_uuids`` maps every name of the host's cards to their UUIDs. Raises KeyError for a card that is not there.
    """
    found = [_instance(host, stack, instance, gpu_uuids) for instance in stack.instances]
    if stack.web_ui:
        found.append(_web_ui(host, stack, stack.web_ui))
    if stack.gateway:
        found.append(_gateway(host, stack, stack.gateway))
    hashes = _hashes(host, stack, found)
    return [replace(service, configuration=hashes[service.name]) for service in found]


def compose_file(host: Host, stack: Stack, gpu_uuids: Mapping[GpuName, str]) -> str:
    """The text of the Compose file."""
    return _render(host, stack, services(host, stack, gpu_uuids))


def gpu_turn() -> str:
    """The entrypoint wrapper that lets one engine start at a time on a GPU."""
    return (TEMPLATES / "gpu-turn.py").read_text(encoding="utf-8")


def _literal(text: str) -> str:
    """Compose replaces ``$NAME``; what the person wrote is meant as it stands."""
    return text.replace("$", "$$")


def _render(host: Host, stack: Stack, rendered: list[Service]) -> str:
    docker = host.settings.docker
    literal = [
        replace(
            service,
            command=tuple(map(_literal, service.command)),
            environment={name: _literal(value) for name, value in service.environment.items()},
        )
        for service in rendered
    ]
    return render(
        "compose/compose.yaml.j2",
        project=stack.project,
        host=host.name,
        services=literal,
        open_files=docker.open_files,
        log_max_size=docker.log_max_size,
        log_max_file=docker.log_max_file,
        gpus_by_cdi=docker.gpus_by_cdi,
        named_volumes=[name for service in literal for name in service.named_volumes],
    )


def _hashes(host: Host, stack: Stack, unlabelled: list[Service]) -> dict[str, str]:
    """Hash what the template makes of each service, so that an edit of the template counts as a change too."""
    tree = yaml.safe_load(_render(host, stack, unlabelled))["services"]
    wrapper = hashlib.sha256(gpu_turn().encode()).hexdigest()
    hashes = {}
    for service in unlabelled:
        content = json.dumps(tree[service.name], sort_keys=True) + (wrapper if service.takes_turns else "")
        hashes[service.name] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return hashes


def _instance(host: Host, stack: Stack, instance: Instance, gpu_uuids: Mapping[GpuName, str]) -> Service:
    uuids = [gpu_uuids[name] for name in instance.gpus]
    image = host.image_of(instance)
    made = engine_of(instance.engine).container(Place(host, stack, instance, image, uuids))
    # Whoever takes turns waits for all others on its cards.
    neighbours = sum(1 for _, other in host.instances() if set(other.gpus) & set(instance.gpus))
    return Service(
        name=instance.service_name,
        container=instance.name,
        image=image,
        engine=instance.engine,
        entrypoint=made.entrypoint,
        command=made.command,
        gpus=tuple(uuids),
        ports=(f"{instance.port}:{instance.container_port}",),
        volumes=made.volumes,
        environment={"STOKER_INSTANCE": instance.name, **made.environment, **instance.environment},
        healthcheck=made.healthcheck,
        start_period=host.settings.ready_timeout * (neighbours if made.takes_turns else 1),
        stop_grace_seconds=30,
        takes_turns=made.takes_turns,
        shared_memory=made.shared_memory or host.profile_of(instance).shared_memory,
    )


def _web_ui(host: Host, stack: Stack, web_ui: WebUi) -> Service:
    ollamas = [instance for instance in stack.instances if instance.engine == "ollama"]
    data = "/app/backend/data"
    return Service(
        name=web_ui.service,
        container=web_ui.container,
        image=host.web_ui_image,
        engine="open-webui",
        entrypoint=(),
        command=(),
        gpus=(),
        ports=(f"{web_ui.port}:{CONTAINER_PORT}",),
        volumes=(f"{web_ui.volume}:{data}",),
        environment={
            "OLLAMA_BASE_URLS": ";".join(f"http://{one.service_name}:{one.container_port}" for one in ollamas),
            # Accounts; whoever makes the first one administers the others.
            "WEBUI_AUTH": "True",
            # In the volume, or every new container would end all sessions.
            "WEBUI_SECRET_KEY_FILE": f"{data}/.webui_secret_key",
            "ENABLE_OPENAI_API": "False",
            # What stands here holds, also when its database remembers something else (it would keep the first start's addresses).
            "ENABLE_PERSISTENT_CONFIG": "False",
            # It asks nobody outside: no models of the hub, no look for newer versions.
            "OFFLINE_MODE": "True",
        },
        healthcheck=("CMD", "curl", "-q", "-s", "-f", "-m", "8", f"http://127.0.0.1:{CONTAINER_PORT}/health"),
        start_period=120,
        stop_grace_seconds=10,
        named_volumes=(web_ui.volume,),
    )


def external_volumes(gateway: Gateway) -> list[str]:
    """What a gateway's container sees of the host because of services elsewhere: their keys, and whom the host trusts."""
    return gateway_external.volumes(gateway, f"{HOST_SERVICE_KEYS}/{gateway.container}")


def _gateway(host: Host, stack: Stack, gateway: Gateway) -> Service:
    return Service(
        name=gateway.service,
        container=gateway.container,
        image=host.gateway_image,
        engine="nginx",
        entrypoint=(),
        command=("nginx", "-c", f"{CONFIG_DIRECTORY}/{gateway.config_file}", "-g", "daemon off;"),
        gpus=(),
        ports=tuple(f"{port}:{port}" for port in gateway.ports),
        # Directories, not files: a mounted file would stay the old one when it is replaced.
        volumes=(
            f"{stack_directory(host, stack)}/gateway:{CONFIG_DIRECTORY}:ro",
            f"{HOST_GATEWAYS}/{gateway.container}:{STATE_DIRECTORY}:ro",
            *([tls_volume(gateway.tls)] if gateway.tls else []),
            *external_volumes(gateway),
        ),
        environment={},
        healthcheck=(),
        start_period=0,
        stop_grace_seconds=10,
    )

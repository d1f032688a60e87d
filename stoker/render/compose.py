"""The Compose file of a stack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import yaml

from stoker.facts.paths import HOST_CACHE, HOST_GATEWAYS, HOST_LOCKS
from stoker.render.environment import TEMPLATES, render
from stoker.render.gateway import CONFIG_DIRECTORY, STATE_DIRECTORY
from stoker.render.gateway_protection import tls_volume
from stoker.spec.fleet import Host
from stoker.spec.gateway import Gateway
from stoker.spec.gpu_name import GpuName
from stoker.spec.instance import Instance
from stoker.spec.settings import HubModel
from stoker.spec.stack import Stack
from stoker.spec.vllm import to_argv, version_of, with_defaults

#: Where things are inside the containers.
MODEL_DATA = "/model_data"
OLLAMA_HOME = "/root/.ollama"
LOCKS = "/run/stoker/locks"
CACHE = "/var/cache/stoker"

_VLLM_HEALTH = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=8)"


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
    shared_memory: str = ""  #: size of /dev/shm in Compose's words; empty: Docker's 64 MiB
    configuration: str = ""  #: hash of everything that needs a new container when it changes


def stack_directory(host: Host, stack: Stack) -> str:
    return f"{host.settings.stack_root}/{stack.project}"


def services(host: Host, stack: Stack, gpu_uuids: Mapping[GpuName, str]) -> list[Service]:
    """The services of a stack, each with the hash that its container will be labelled with.

    ``gpu_uuids`` maps every name of the host's cards to their UUIDs. Raises KeyError for a card that is not there.
    """
    found = [_instance(host, stack, instance, gpu_uuids) for instance in stack.instances]
    if stack.gateway:
        found.append(_gateway(host, stack, stack.gateway))
    hashes = _hashes(host, stack, found)
    return [replace(service, configuration=hashes[service.name]) for service in found]


def cache_directory(uuids: Collection[str]) -> str:
    """The host's directory for what engines on these cards compile: one for each card, the first by name for several.

    vLLM v0.19.1 is not safe for two processes that fill one cache: vllm_compile_cache.py is written in place
    (compilation/backends.py), and the AOT artifact under a name that differs by process id only (compilation/decorators.py),
    which two containers share. Whoever writes here has the first card's lock, so there is one writer at a time. Cards that
    load side by side would find nothing of each other's anyway.
    """
    return f"{HOST_CACHE}/{min(uuids)}"


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
    )


def _hashes(host: Host, stack: Stack, unlabelled: list[Service]) -> dict[str, str]:
    """Hash what the template makes of each service, so that an edit of the template counts as a change too."""
    tree = yaml.safe_load(_render(host, stack, unlabelled))["services"]
    wrapper = hashlib.sha256(gpu_turn().encode()).hexdigest()
    hashes = {}
    for service in unlabelled:
        content = json.dumps(tree[service.name], sort_keys=True) + (wrapper if service.engine == "vllm" else "")
        hashes[service.name] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return hashes


def _instance(host: Host, stack: Stack, instance: Instance, gpu_uuids: Mapping[GpuName, str]) -> Service:
    uuids = [gpu_uuids[name] for name in instance.gpus]
    common = Service(
        name=instance.service_name,
        container=instance.name,
        image=host.image_of(instance),
        engine=instance.engine,
        entrypoint=(),
        command=(),
        gpus=tuple(uuids),
        ports=(f"{instance.port}:{instance.container_port}",),
        volumes=(),
        environment={"STOKER_INSTANCE": instance.name},
        healthcheck=(),
        start_period=host.settings.ready_timeout,
        stop_grace_seconds=30,
    )
    return (
        _vllm(host, stack, instance, uuids, common)
        if instance.engine == "vllm"
        else _ollama(host, stack, instance, common)
    )


def _vllm(host: Host, stack: Stack, instance: Instance, uuids: list[str], service: Service) -> Service:
    model = host.model_of(instance)
    assert isinstance(model, HubModel)  # the spec refuses an engine that cannot serve the model
    locks = [part for uuid in uuids for part in ("--lock", f"{LOCKS}/{uuid}.lock")]
    profile = host.profile_of(instance)
    neighbours = sum(1 for _, other in host.instances() if set(other.gpus) & set(instance.gpus))
    return replace(
        service,
        entrypoint=(
            "python3",
            "/stoker/gpu-turn.py",
            *locks,
            "--health",
            "http://127.0.0.1:8000/health",
            # vLLM itself gives up after ready_timeout; who still holds the turn long after that will not let go.
            "--max-hold",
            str(2 * host.settings.ready_timeout),
            "--weights",
            f"{MODEL_DATA}/{model.directory}",
            "--cache",
            CACHE,
            "--",
            "vllm",
            "serve",
        ),
        command=(
            f"{MODEL_DATA}/{model.directory}",
            "--served-model-name",
            instance.model,
            *model.aliases,
            *to_argv(with_defaults(instance.arguments, version_of(service.image))),
        ),
        volumes=(
            f"{stack.model_directory}:{MODEL_DATA}:ro",
            f"{host.settings.stack_root}/bin:/stoker:ro",
            f"{HOST_LOCKS}:{LOCKS}",
            # Compiled graphs and kernels outlive the container, so that only the first start on a card pays for them.
            f"{cache_directory(uuids)}:{CACHE}",
        ),
        environment={
            **service.environment,
            # A new revision of the model's files needs a new start.
            "STOKER_MODEL": f"{model.repository}@{model.revision}",
            # The files are there and verified: no look at the hub when an engine starts.
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_ENGINE_READY_TIMEOUT_S": str(host.settings.ready_timeout),
            "VLLM_CACHE_ROOT": f"{CACHE}/vllm",
            "TRITON_CACHE_DIR": f"{CACHE}/triton",
            "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
            **instance.environment,
        },
        healthcheck=("CMD", "python3", "-c", _VLLM_HEALTH),
        start_period=host.settings.ready_timeout * neighbours,
        shared_memory="16gb" if len(uuids) > 1 else profile.shared_memory,
    )


def _ollama(host: Host, stack: Stack, instance: Instance, service: Service) -> Service:
    return replace(
        service,
        volumes=(f"{stack.model_directory}:{OLLAMA_HOME}",),
        # Instances share the directory: a starting Ollama must not prune what another one is downloading.
        environment={**service.environment, "OLLAMA_NOPRUNE": "1", **_proxy(host), **instance.environment},
        healthcheck=("CMD", "ollama", "list"),
    )


def _proxy(host: Host) -> dict[str, str]:
    proxy = host.settings.proxy
    wanted = {"HTTP_PROXY": proxy.http, "HTTPS_PROXY": proxy.https, "NO_PROXY": ",".join(proxy.no_proxy)}
    return {name: value for name, value in wanted.items() if value} if proxy.http or proxy.https else {}


def _gateway(host: Host, stack: Stack, gateway: Gateway) -> Service:
    return Service(
        name=gateway.service,
        container=gateway.container,
        image=host.settings.versions.nginx,
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
        ),
        environment={},
        healthcheck=(),
        start_period=0,
        stop_grace_seconds=10,
    )

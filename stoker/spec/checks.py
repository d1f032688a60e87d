"""What must hold between the parts of a description: no clashes, no cards that do not exist, no models that nobody serves."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from stoker.spec import vllm
from stoker.spec.fleet import Fleet, Host
from stoker.spec.gateway import Gateway
from stoker.spec.gpu_name import GpuName, label
from stoker.spec.instance import Instance
from stoker.spec.problems import Problem
from stoker.spec.settings import OllamaModel

#: Makes a Problem: field, value, reason, remedy, and the instance's name where it belongs to one.
_Make = Callable[..., Problem]


def host_problems(host: Host, origin: Callable[[str], str], unknown: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """What cannot be on one host. ``unknown`` names settings that are wrong themselves: nothing is concluded from them."""
    where = origin("stacks")

    def problem(field: str, value: object, reason: str, remedy: str, instance: str = "") -> Problem:
        return Problem(where, field, repr(value), reason, remedy, instance)

    yield from _duplicates(host, problem)
    for _, instance in host.instances():
        if "models" not in unknown:
            yield from _model_problems(host, instance, problem)
        yield from _gpu_problems(host, instance, problem)
        if instance.engine == "vllm":
            yield from _vllm_problems(host, instance, problem)
        elif instance.arguments:
            yield problem(
                "arguments",
                dict(instance.arguments),
                "Ollama takes no command-line arguments",
                "use `environment`, or the model's `parameters`",
                instance.name,
            )
    yield from _overfull_gpus(host, problem)


def _model_problems(host: Host, instance: Instance, problem: _Make) -> Iterator[Problem]:
    model = host.settings.models.get(instance.model)
    if model is None:
        yield problem(
            "model",
            instance.model,
            "no model of this name is described in `models`",
            f"use one of {', '.join(sorted(host.settings.models))}, or describe it in group_data/all.py",
            instance.name,
        )
    elif isinstance(model, OllamaModel) != (instance.engine == "ollama"):
        kind = "the Ollama library" if isinstance(model, OllamaModel) else "a model hub"
        yield problem(
            "engine",
            instance.engine,
            f"the model {instance.model} is described as one of {kind}",
            "change the engine, or the model's description in group_data/all.py",
            instance.name,
        )


def _gpu_problems(host: Host, instance: Instance, problem: _Make) -> Iterator[Problem]:
    gpus = list(instance.gpus)
    for gpu in gpus:
        if isinstance(gpu, int) and not 0 <= gpu < host.gpus.count:
            yield problem(
                "gpus",
                gpus,
                f"GPU {gpu} does not exist: {host.name} has {host.gpus.count}, counted from 0",
                f"use 0 to {host.gpus.count - 1}, or correct `gpus` of the host",
                instance.name,
            )
    if len(set(gpus)) != len(gpus):
        yield problem("gpus", gpus, "a GPU is named twice", "name each GPU once", instance.name)


def _vllm_problems(host: Host, instance: Instance, problem: _Make) -> Iterator[Problem]:
    gpus, arguments = list(instance.gpus), instance.arguments
    sizes = [arguments.get(f"{kind}-parallel-size") or 1 for kind in ("tensor", "pipeline")]
    if (
        len(set(gpus)) == len(gpus)
        and all(isinstance(size, int) for size in sizes)
        and math.prod(map(int, sizes)) != len(gpus)
    ):
        yield problem(
            "gpus",
            gpus,
            f"tensor-parallel-size {sizes[0]} x pipeline-parallel-size {sizes[1]} is not the number of its GPUs",
            f"write 'tensor-parallel-size': {len(gpus)} in `arguments`, or change `gpus`",
            instance.name,
        )
    for argument, reason, remedy in vllm.problems_of(arguments, vllm.version_of(host.image_of(instance))):
        yield problem(f"arguments[{argument!r}]", arguments[argument], reason, remedy, instance.name)


def _overfull_gpus(host: Host, problem: _Make) -> Iterator[Problem]:
    """Cards of which vLLM's instances together want more than there is. Without the argument each takes 0.9 (v0.19.1)."""
    load: dict[GpuName, float] = defaultdict(float)
    for _, instance in host.instances():
        share = instance.arguments.get("gpu-memory-utilization", 0.9)
        uses_card = host.profile_of(instance).uses_cards
        if instance.engine == "vllm" and uses_card and isinstance(share, int | float) and 0 < share <= 1:
            for gpu in set(instance.gpus):
                load[gpu] += share
    for gpu, total in sorted(load.items(), key=lambda entry: str(entry[0])):
        if total > 1 + 1e-9:
            names = ", ".join(instance.name for _, instance in host.instances() if gpu in instance.gpus)
            yield problem(
                "gpu-memory-utilization",
                round(total, 3),
                f"the instances on {label(gpu)} ({names}) want more than the whole card",
                "lower gpu-memory-utilization, or move an instance to another GPU",
                names,
            )


def _duplicates(host: Host, problem: _Make) -> Iterator[Problem]:
    ports: dict[int, list[str]] = defaultdict(list)
    containers: Counter[str] = Counter()
    projects = Counter(stack.project for stack in host.stacks)
    for stack in host.stacks:
        # Two containers of one name would have one service name too; saying so once is enough.
        services = Counter({instance.name: instance.service_name for instance in stack.instances}.values())
        for instance in stack.instances:
            ports[instance.port].append(instance.name)
            containers[instance.name] += 1
        if stack.gateway:
            for port in stack.gateway.ports:
                ports[port].append(stack.gateway.container)
            containers[stack.gateway.container] += 1
            services[stack.gateway.service] += 1
        for service, count in services.items():
            if count > 1:
                yield problem(
                    "service",
                    service,
                    f"{count} services of project {stack.project} have this name",
                    "give each its own name",
                )
    for port, users in ports.items():
        if len(users) > 1:
            yield problem(
                "port",
                port,
                f"{', '.join(users)} all want this port of {host.name}",
                "give each its own port",
                users[1],
            )
    for name, count in containers.items():
        if count > 1:
            yield problem(
                "name", name, f"{count} containers on {host.name} have this name", "give each its own name", name
            )
    for project, count in projects.items():
        if count > 1:
            yield problem(
                "project", project, f"{count} stacks on {host.name} have this project name", "give each its own name"
            )


def gateway_problems(fleet: Fleet, host: Host, origin: Callable[[str], str]) -> Iterator[Problem]:
    for stack in host.stacks:
        if stack.gateway:
            yield from _access_problems(fleet, host, stack.gateway, origin("stacks"))
        for pool in stack.gateway.pools if stack.gateway else ():
            field = f"gateway.pools[{pool.name!r}]"
            assert stack.gateway is not None
            unknown = [name for name in pool.hosts or () if name not in {other.name for other in fleet.hosts}]
            if unknown:
                yield Problem(
                    origin("stacks"),
                    f"{field}.hosts",
                    repr(unknown),
                    "the inventory has no such host",
                    f"use {', '.join(other.name for other in fleet.hosts)}",
                    stack.gateway.container,
                )
            elif not fleet.members(pool.model, pool.hosts):
                yield Problem(
                    origin("stacks"),
                    f"{field}.model",
                    repr(pool.model),
                    "no instance in the fleet serves this model",
                    "add an instance, or remove the pool",
                    stack.gateway.container,
                )


def firewall_problems(fleet: Fleet, host: Host, origin: Callable[[str], str]) -> Iterator[Problem]:
    if host.settings.firewall == "off":
        return
    for other in fleet.hosts_that_ask(host):
        try:
            ipaddress.ip_network(other.address)
        except ValueError:
            yield Problem(
                origin("firewall"),
                "firewall",
                repr(host.settings.firewall),
                f"the gateway on {other.name} uses the engines of {host.name}, and {other.address!r} is no IP address: "
                "the rules are loaded at boot, before names resolve",
                f'give it one in the inventory: ("{other.name}", {{"address": "192.168.31.65"}})',
            )


def _access_problems(fleet: Fleet, host: Host, gateway: Gateway, where: str) -> Iterator[Problem]:
    def problem(field: str, value: object, reason: str, remedy: str) -> Problem:
        return Problem(where, f"gateway.{field}", repr(value), reason, remedy, gateway.container)

    if not gateway.allowed_networks:
        yield problem(
            "allowed_networks",
            list(gateway.allowed_networks),
            "it names no network, so nobody could use the gateway",
            'write where its clients are, for instance "allowed_networks": ["192.168.31.0/24"]',
        )
    if host.settings.strict and not gateway.keys:
        yield problem(
            "keys",
            list(gateway.keys),
            "`strict` asks for keys, and the gateway has none",
            "run `stoker key new NAME` and add the line that it prints, or remove `strict`",
        )
    if host.settings.strict and gateway.tls and gateway.plain_port:
        yield problem(
            "tls.port",
            gateway.tls.port,
            f"`strict` leaves no plain port beside HTTPS, and {gateway.plain_port} would stay one: keys would travel in the clear",
            f"remove it: {gateway.plain_port} then speaks HTTPS; or remove `strict`",
        )
    if gateway.keys:
        for pool in gateway.pools:
            for _, instance in fleet.members(pool.model, pool.hosts):
                if instance.engine == "vllm" and (
                    "VLLM_API_KEY" in instance.environment or "api-key" in instance.arguments
                ):
                    yield problem(
                        "keys",
                        [key.name for key in gateway.keys],
                        f"{instance.name} wants a key of its own, and a gateway with keys passes none on",
                        "remove the instance's key, and close its port with `strict` instead",
                    )

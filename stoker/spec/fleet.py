"""The whole fleet: hosts with their settings and stacks, and what must hold between them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace, replace

from pydantic import ValidationError

from stoker.spec import explain, vllm
from stoker.spec.base import Spec
from stoker.spec.instance import Instance
from stoker.spec.problems import Problem, SpecError
from stoker.spec.settings import HubModel, OllamaModel, Settings
from stoker.spec.stack import GpuHardware, Stack


class HostDescription(Spec):
    """What group_data says of one host, beside the site's settings."""

    gpus: GpuHardware
    stacks: tuple[Stack, ...]
    #: Where other hosts' gateways reach this one; its inventory name when not given.
    address: str | None = None


@dataclass(frozen=True)
class RawHost:
    """A host as the inventory gives it: data by name, and for each name the place it was written."""

    name: str
    data: Mapping[str, object]
    origin: Callable[[str], str]


@dataclass(frozen=True)
class Host:
    """One host of the fleet, validated."""

    name: str
    address: str
    gpus: GpuHardware
    stacks: tuple[Stack, ...]
    settings: Settings

    def instances(self) -> Iterator[tuple[Stack, Instance]]:
        for stack in self.stacks:
            for instance in stack.instances:
                yield stack, instance

    def only(self, names: Collection[str]) -> Host:
        """This host with the named instances alone, and no gateways: for what they need. Empty: all of it."""
        if not names:
            return self
        stacks = (
            stack.model_copy(update={"instances": chosen, "gateway": None})
            for stack in self.stacks
            if (chosen := tuple(instance for instance in stack.instances if instance.name in names))
        )
        return replace(self, stacks=tuple(stacks))

    def model_of(self, instance: Instance) -> HubModel | OllamaModel:
        return self.settings.models[instance.model]

    def image_of(self, instance: Instance) -> str:
        return instance.image or str(getattr(self.settings.versions, instance.engine))

    def images(self) -> list[str]:
        """Every image that this host needs, each once."""
        gateways = [self.settings.versions.nginx] if any(stack.gateway for stack in self.stacks) else []
        return list(dict.fromkeys([self.image_of(instance) for _, instance in self.instances()] + gateways))


@dataclass(frozen=True)
class Fleet:
    """All hosts of the inventory, in its order."""

    hosts: tuple[Host, ...]

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def members(self, model: str, only_hosts: Sequence[str] | None = None) -> list[tuple[Host, Instance]]:
        """Every instance in the fleet that serves a model, in the inventory's order."""
        return [
            (host, instance)
            for host in self.hosts
            if only_hosts is None or host.name in only_hosts
            for _, instance in host.instances()
            if instance.model == model
        ]


#: Names that pyinfra itself reads from group_data (connectors and global arguments).
_PYINFRA_PREFIXES = ("ssh_", "_")


def build_fleet(raw_hosts: Iterable[RawHost], group_files: Mapping[str, bool] | None = None) -> Fleet:
    """Validate everything and report every problem at once.

    ``group_files`` maps each file of group_data to whether a group of that name exists.
    Raises SpecError.
    """
    problems = [
        Problem(
            where=path,
            field="file name",
            value="",
            reason="no group in the inventory has this name, so nothing reads the file",
            remedy="rename the file to a group of inventory.py (or all.py), or add the group",
        )
        for path, used in (group_files or {}).items()
        if not used
    ]
    hosts = []
    for raw in raw_hosts:
        host, found = _build_host(raw)
        problems += found
        if host is not None:
            hosts.append(host)
            problems += _host_problems(host, raw.origin)
    fleet = Fleet(tuple(hosts))
    if not problems:
        origins = {raw.name: raw.origin for raw in raw_hosts}
        problems += [problem for host in hosts for problem in _gateway_problems(fleet, host, origins[host.name])]
    if problems:
        raise SpecError(problems)
    return fleet


def _build_host(raw: RawHost) -> tuple[Host | None, list[Problem]]:
    known = set(Settings.model_fields) | set(HostDescription.model_fields)
    problems: list[Problem] = []
    settings_data: dict[str, object] = {}
    host_data: dict[str, object] = {}
    for name, value in raw.data.items():
        if name in Settings.model_fields:
            settings_data[name] = value
        elif name in HostDescription.model_fields:
            host_data[name] = tuple(value) if name == "stacks" and isinstance(value, list) else value
        elif not name.startswith(_PYINFRA_PREFIXES):
            problems.append(explain.unknown_name(raw.origin(name), name, value, known))
    misspelt = {explain.closest(problem.field, known) for problem in problems}
    settings: Settings | None = None
    description: HostDescription | None = None
    try:
        settings = Settings.model_validate(settings_data)
    except ValidationError as error:
        problems += explain.explain(error, lambda name: _settings_file(raw, name), settings_data)
    try:
        description = HostDescription.model_validate(host_data)
    except ValidationError as error:
        problems += [_of_host(raw, problem) for problem in explain.explain(error, raw.origin, host_data)]
    if settings is None or description is None:
        # A name that is misspelt is missing too; saying so once is enough.
        return None, [problem for problem in problems if problem.field not in misspelt or problem.value]
    return Host(raw.name, description.address or raw.name, description.gpus, description.stacks, settings), problems


def _of_host(raw: RawHost, problem: Problem) -> Problem:
    """Name the host where a whole part of its description is missing."""
    if problem.field not in HostDescription.model_fields or problem.value:
        return problem
    return replace(
        problem,
        reason=f"{raw.name} has none, and there is no default",
        remedy=f"add {problem.field!r}, or take {raw.name} out of the inventory",
    )


def _settings_file(raw: RawHost, name: str) -> str:
    """Where a setting stands, or belongs."""
    return raw.origin(name) if name in raw.data else "group_data/all.py"


def _host_problems(host: Host, origin: Callable[[str], str]) -> Iterator[Problem]:
    where = origin("stacks")

    def problem(field: str, value: object, reason: str, remedy: str, instance: str = "") -> Problem:
        return Problem(where, field, repr(value), reason, remedy, instance)

    yield from _duplicates(host, problem)
    load: dict[int, float] = defaultdict(float)
    for _, instance in host.instances():
        name = instance.name
        model = host.settings.models.get(instance.model)
        if model is None:
            yield problem(
                "model",
                instance.model,
                "no model of this name is described in `models`",
                f"use one of {', '.join(sorted(host.settings.models))}, or describe it in group_data/all.py",
                name,
            )
        elif isinstance(model, OllamaModel) != (instance.engine == "ollama"):
            kind = "the Ollama library" if isinstance(model, OllamaModel) else "a model hub"
            yield problem(
                "engine",
                instance.engine,
                f"the model {instance.model} is described as one of {kind}",
                "change the engine, or the model's description in group_data/all.py",
                name,
            )
        for gpu in instance.gpus:
            if not 0 <= gpu < host.gpus.count:
                yield problem(
                    "gpus",
                    list(instance.gpus),
                    f"GPU {gpu} does not exist: {host.name} has {host.gpus.count}, counted from 0",
                    f"use 0 to {host.gpus.count - 1}, or correct `gpus` of the host",
                    name,
                )
        if len(set(instance.gpus)) != len(instance.gpus):
            yield problem("gpus", list(instance.gpus), "a GPU is named twice", "name each GPU once", name)
        if instance.engine == "vllm":
            for argument, reason, remedy in vllm.problems_of(instance.arguments, _version(host.image_of(instance))):
                yield problem(f"arguments[{argument!r}]", instance.arguments[argument], reason, remedy, name)
            share = instance.arguments.get("gpu-memory-utilization", 0.9)
            if isinstance(share, int | float) and 0 < share <= 1:
                for gpu in set(instance.gpus):
                    load[gpu] += share
        elif instance.arguments:
            yield problem(
                "arguments",
                dict(instance.arguments),
                "Ollama takes no command-line arguments",
                "use `environment`, or the model's `parameters`",
                name,
            )
    for gpu, share in sorted(load.items()):
        if share > 1 + 1e-9:
            names = ", ".join(instance.name for _, instance in host.instances() if gpu in instance.gpus)
            yield problem(
                "gpu-memory-utilization",
                round(share, 3),
                f"the instances on GPU {gpu} ({names}) want more than the whole card",
                "lower gpu-memory-utilization, or move an instance to another GPU",
                names,
            )


def _version(image: str) -> str:
    """``vllm/vllm-openai:v0.19.1`` -> 0.19.1; empty when the tag is not a plain version."""
    match = re.fullmatch(r".*:v?(\d+(?:\.\d+)+)", image.partition("@")[0])
    return match.group(1) if match else ""


def _duplicates(host: Host, problem: Callable[..., Problem]) -> Iterator[Problem]:
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
            ports[stack.gateway.port].append(stack.gateway.container)
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


def _gateway_problems(fleet: Fleet, host: Host, origin: Callable[[str], str]) -> Iterator[Problem]:
    for stack in host.stacks:
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

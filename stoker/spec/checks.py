"""What must hold between the parts of a description: no clashes, no cards that do not exist, no models that nobody serves."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from stoker.engine.registry import engine_of
from stoker.spec import vllm
from stoker.spec.fleet import LOCAL, Fleet, Host
from stoker.spec.gateway import Gateway, Kind, Pool
from stoker.spec.gpu_name import GpuName, label
from stoker.spec.instance import Instance
from stoker.spec.problems import Problem
from stoker.spec.settings import FilesModel, HubModel, OllamaModel
from stoker.spec.stack import Stack

#: Makes a Problem: field, value, reason, remedy, and the instance's name where it belongs to one.
_Make = Callable[..., Problem]

_LOCAL_ADDRESS = f'give this machine\'s address in its network: ("{LOCAL}", {{"address": "192.168.31.40"}})'


def host_problems(host: Host, origin: Callable[[str], str], unknown: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """What cannot be on one host. ``unknown`` names settings that are wrong themselves: nothing is concluded from them."""
    where = origin("stacks")

    def problem(field: str, value: object, reason: str, remedy: str, instance: str = "") -> Problem:
        return Problem(where, field, repr(value), reason, remedy, instance)

    if host.gpus is None and any(instance.gpus for _, instance in host.instances()):
        yield Problem(
            origin("gpus"),
            "gpus",
            "",
            f"{host.name} has none, and there is no default",
            f"add 'gpus', or take {host.name} out of the inventory",
        )
    if host.address == LOCAL:
        yield Problem(
            origin("address"),
            "address",
            "",
            f"{LOCAL} has none, and no gateway and no client can use that name as one",
            _LOCAL_ADDRESS,
        )
    yield from _duplicates(host, problem)
    yield from _directory_problems(host, problem)
    for stack in host.stacks:
        yield from _web_ui_problems(host, stack, problem, known_versions="versions" not in unknown)
    for _, instance in host.instances():
        if "models" not in unknown:
            yield from _model_problems(host, instance, problem)
        yield from _gpu_problems(host, instance, problem)
        if "versions" not in unknown:
            yield from _version_problems(host, instance, problem)
        yield from _argument_problems(host, instance, problem)
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
        return
    wanted = engine_of(instance.engine).source
    if isinstance(model, OllamaModel) != (wanted == "library"):
        kind = "the Ollama library" if isinstance(model, OllamaModel) else "a model hub or a directory"
        yield problem(
            "engine",
            instance.engine,
            f"the model {instance.model} is described as one of {kind}",
            "change the engine, or the model's description in group_data/all.py",
            instance.name,
        )
    elif isinstance(model, FilesModel) and (model.file is not None) != (wanted == "gguf"):
        title = engine_of(instance.engine).title
        yield problem(
            "model",
            instance.model,
            f"{title} reads one .gguf file, and the model names none"
            if wanted == "gguf"
            else f"the model is one .gguf file, and {title} reads a directory of safetensors",
            "describe the model with `file`, for instance 'file': 'Qwen3-4B-Q4_K_M.gguf'"
            if wanted == "gguf"
            else "remove `file` from the model's description and name a repository with safetensors, or use the engine llama-cpp",
            instance.name,
        )


def _gpu_problems(host: Host, instance: Instance, problem: _Make) -> Iterator[Problem]:
    gpus = list(instance.gpus)
    needs = (
        host.profile_of(instance).uses_cards or instance.engine == "vllm"
    )  # whose turns are by card, on processors too
    if needs and not gpus:
        remedy = 'write the cards of the host that it uses, for instance "gpus": [0]'
        yield problem("gpus", gpus, "it names no card", remedy, instance.name)
    for gpu in gpus if host.gpus else ():
        assert host.gpus is not None
        if isinstance(gpu, int) and not 0 <= gpu < host.gpus.count:
            yield problem(
                "gpus",
                gpus,
                f"GPU {gpu} does not exist: {host.name} has {host.gpus.count}, counted from 0",
                f"use 0 to {host.gpus.count - 1}, or correct `gpus` of the host",
                instance.name,
            )
    if gpus and not needs:
        yield problem("gpus", gpus, "its profile works on the processor", "remove them, or the profile", instance.name)
    if len(set(gpus)) != len(gpus):
        yield problem("gpus", gpus, "a GPU is named twice", "name each GPU once", instance.name)


def _version_problems(host: Host, instance: Instance, problem: _Make) -> Iterator[Problem]:
    if instance.image is None and instance.engine not in host.settings.versions.engines:
        example = engine_of(instance.engine).published
        yield problem(
            "image",
            None,
            f"`versions` has no image of {instance.engine}, and the instance names none",
            f"add {instance.engine!r}: '{example.example}' to `versions` in group_data/all.py",
            instance.name,
        )


def _argument_problems(host: Host, instance: Instance, problem: _Make) -> Iterator[Problem]:
    engine = engine_of(instance.engine)
    image = instance.image or host.settings.versions.engines.get(instance.engine, "")
    if engine.card_arguments:
        yield from _parallel_problems(instance, engine.card_arguments, problem)
    for argument, reason, remedy in engine.argument_problems(instance.arguments, vllm.version_of(image)):
        yield problem(f"arguments[{argument!r}]", instance.arguments[argument], reason, remedy, instance.name)
    kind = engine.kind(instance.arguments)
    if kind not in engine.paths:
        yield problem(
            "arguments",
            dict(instance.arguments),
            f"{engine.title} cannot serve {kind} here",
            f"use it for {' or '.join(engine.paths)}",
            instance.name,
        )


def _parallel_problems(instance: Instance, names: Sequence[str], problem: _Make) -> Iterator[Problem]:
    gpus, arguments = list(instance.gpus), instance.arguments
    sizes = [arguments.get(name) or 1 for name in names]
    if (
        gpus
        and len(set(gpus)) == len(gpus)
        and all(isinstance(size, int) for size in sizes)
        and math.prod(map(int, sizes)) != len(gpus)
    ):
        yield problem(
            "gpus",
            gpus,
            f"{' x '.join(f'{name} {size}' for name, size in zip(names, sizes, strict=True))} is not the number of its GPUs",
            f"write {names[0]!r}: {len(gpus)} in `arguments`, or change `gpus`",
            instance.name,
        )


def _overfull_gpus(host: Host, problem: _Make) -> Iterator[Problem]:
    """Cards of which instances that ask for a share together want more than there is."""
    load: dict[GpuName, float] = defaultdict(float)
    for _, instance in host.instances():
        share = engine_of(instance.engine).share(instance.arguments)
        if host.profile_of(instance).uses_cards and 0 < share <= 1:
            for gpu in set(instance.gpus):
                load[gpu] += share
    for gpu, total in sorted(load.items(), key=lambda entry: str(entry[0])):
        if total > 1 + 1e-9:
            sharing = [instance for _, instance in host.instances() if gpu in instance.gpus]
            names = ", ".join(instance.name for instance in sharing)
            arguments = dict.fromkeys(name for one in sharing if (name := engine_of(one.engine).share_argument))
            yield problem(
                " and ".join(arguments),
                round(total, 3),
                f"the instances on {label(gpu)} ({names}) want more than the whole card",
                f"lower {' and '.join(arguments)}, or move an instance to another GPU",
                names,
            )


def _directory_problems(host: Host, problem: _Make) -> Iterator[Problem]:
    """What is downloaded into one directory is one model, or the manifest beside it would be of neither."""
    owners: dict[str, tuple[str, str | None]] = {}
    for stack, instance in host.instances():
        model = host.settings.models.get(instance.model)
        if not isinstance(model, HubModel):
            continue
        path = f"{stack.model_directory}/{model.directory}"
        if owners.setdefault(path, (model.origin, model.file)) != (model.origin, model.file):
            yield problem(
                "directory",
                path,
                f"{instance.model} would be downloaded where another model is: {owners[path][0]} {owners[path][1] or ''}".rstrip(),
                "give each its own `directory` in `models`",
                instance.name,
            )


def _web_ui_problems(host: Host, stack: Stack, problem: _Make, known_versions: bool) -> Iterator[Problem]:
    if stack.web_ui is None:
        return
    name = stack.web_ui.container
    if known_versions and host.settings.versions.open_webui is None:
        remedy = "add 'open_webui': 'ghcr.io/open-webui/open-webui:vN.N.N' to `versions` in group_data/all.py"
        yield problem("web_ui", name, "`versions` has no image of Open WebUI", remedy, name)
    if host.settings.strict:
        yield problem(
            "web_ui",
            name,
            "`strict` lets nobody but the gateways use the models, and this page manages them for whoever has an account",
            "remove it, or remove `strict`",
            name,
        )
    if not any(instance.engine == "ollama" for instance in stack.instances):
        yield problem(
            "web_ui",
            name,
            "it manages Ollama's models, and this stack has no Ollama",
            "add an instance of the engine ollama, or remove it",
            name,
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
        if stack.web_ui:
            ports[stack.web_ui.port].append(stack.web_ui.container)
            containers[stack.web_ui.container] += 1
            services[stack.web_ui.service] += 1
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
            elif pool.external:
                yield from _external_problems(fleet, host, stack.gateway, pool, origin("stacks"))
            elif not fleet.members(pool.model, pool.hosts):
                yield Problem(
                    origin("stacks"),
                    f"{field}.model",
                    repr(pool.model),
                    "no instance in the fleet serves this model",
                    "add an instance, or remove the pool",
                    stack.gateway.container,
                )
            else:
                yield from _member_problems(fleet, pool, origin("stacks"), stack.gateway.container)


def _member_problems(fleet: Fleet, pool: Pool, where: str, container: str) -> Iterator[Problem]:
    """Members of one pool are taken for the same."""
    members = [instance for _, instance in fleet.members(pool.model, pool.hosts)]
    field = f"gateway.pools[{pool.name!r}]"
    used = dict.fromkeys(instance.engine for instance in members)
    if len(used) > 1:
        yield Problem(
            where,
            f"{field}.model",
            repr(pool.model),
            f"its instances are of different engines ({', '.join(used)}), which do not answer alike",
            "describe the model under a name for each engine in `models`, with a pool for each",
            container,
        )
    elif mismatched := [one.name for one in members if _does(one) not in (None, pool.kind)]:
        yield Problem(
            where,
            f"{field}.kind",
            repr(pool.kind),
            f"by its arguments {mismatched[0]} is for {_does(members[0])}",
            "correct the pool's `kind`, or the instance's `arguments`",
            container,
        )
    elif pool.kind not in engine_of(members[0].engine).paths:
        title = engine_of(members[0].engine).title
        yield Problem(
            where, f"{field}.kind", repr(pool.kind), f"{title} does not serve this kind", "change the engine", container
        )


def _external_problems(fleet: Fleet, host: Host, gateway: Gateway, pool: Pool, where: str) -> Iterator[Problem]:
    field = f"gateway.pools[{pool.name!r}]"
    instances = [instance.name for _, instance in fleet.members(pool.model)]
    if instances:
        yield Problem(
            where,
            f"{field}.model",
            repr(pool.model),
            f"{', '.join(instances)} of this fleet serve this model, and the pool is external",
            "give the external pool's model another name, or remove `external`",
            gateway.container,
        )
    for other in gateway.pools:
        model = host.settings.models.get(other.model)
        taken = set(pool.names) & set(model.aliases) if isinstance(model, FilesModel) and other is not pool else set()
        if taken:
            yield Problem(
                where,
                f"{field}.model",
                repr(pool.model),
                f"{', '.join(sorted(taken))} is an alias of {other.model}, which the pool {other.name} serves",
                "give each name once",
                gateway.container,
            )


def _does(instance: Instance) -> Kind | None:
    """What an instance's arguments make of it; None where they do not decide, as with Ollama."""
    engine = engine_of(instance.engine)
    return None if engine.source == "library" else engine.kind(instance.arguments)


def address_problems(fleet: Fleet, host: Host, origin: Callable[[str], str]) -> Iterator[Problem]:
    """Whoever describes the machine that they sit at may think of 127.0.0.1."""
    users = [
        stack.gateway.container
        for other in fleet.hosts
        for stack in other.stacks
        if stack.gateway
        and any(member is host for pool in stack.gateway.pools for member, _ in fleet.members(pool.model, pool.hosts))
    ]
    if host.name == LOCAL and users and _is_loopback(host.address):
        reason = f"in the container of {users[0]} this leads to the container itself, not to {LOCAL}"
        yield Problem(origin("address"), "address", repr(host.address), reason, _LOCAL_ADDRESS)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


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
                variable = engine_of(instance.engine).key_variable
                if variable in instance.environment or "api-key" in instance.arguments:
                    yield problem(
                        "keys",
                        [key.name for key in gateway.keys],
                        f"{instance.name} wants a key of its own, and a gateway with keys passes none on",
                        "remove the instance's key, and close its port with `strict` instead",
                    )

"""What must hold between the parts of one host's description: no clashes, no cards that do not exist, no models that nobody serves."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from stoker.engine.registry import engine_of
from stoker.spec import vllm
from stoker.spec.fleet import LOCAL, Host
from stoker.spec.gpu_name import GpuName, label
from stoker.spec.instance import Instance
from stoker.spec.problems import Problem
from stoker.spec.settings import FilesModel, HubModel, OllamaModel
from stoker.spec.stack import Stack

#: Makes a Problem: field, value, reason, remedy, and the instance's name where it belongs to one.
_Make = Callable[..., Problem]

LOCAL_ADDRESS = f'give this machine\'s address in its network: ("{LOCAL}", {{"address": "192.168.31.40"}})'


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
            LOCAL_ADDRESS,
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

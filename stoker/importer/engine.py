"""One engine's service as the parts of an instance. Ports, cards and names are settled later, when all of a host are known. Pure but for files beside."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from stoker.draft.shipped import Shipped
from stoker.importer import rules, secrets
from stoker.importer.command_line import CommandLine, parse, typed
from stoker.importer.compose import Compose, Service
from stoker.importer.models import OLLAMA, ollama_model, owner_of
from stoker.importer.notes import Notes
from stoker.models.card import ModelCard
from stoker.plan.compatibility import engine_version
from stoker.plan.handmade import repository
from stoker.spec import vllm
from stoker.spec.base import AbsolutePath, EnvironmentName, Image, ModelName
from stoker.spec.instance import EngineName
from stoker.spec.settings import AnyModel, HubModel, OllamaModel
from stoker.spec.vllm import Argument

#: Where models go when the file does not say where on the host they are.
MODELS = {"vllm": "/data/models", "ollama": "/data/ollama_models"}

_NO_SECRETS = "secrets are never in group_data"


@dataclass(frozen=True, eq=False)
class Engine:
    """What a service says of the engine in it."""

    service: Service
    compose: Compose
    engine: EngineName
    name: str  #: under which the model is served
    model: AnyModel
    model_directory: str
    image: str | None
    arguments: Mapping[str, Argument]
    environment: Mapping[str, str]

    @property
    def cards(self) -> int:
        """How many one instance computes on."""
        sizes = [self.arguments.get(f"{kind}-parallel-size") for kind in ("tensor", "pipeline")]
        count = 1
        for size in sizes:
            count *= size if isinstance(size, int) and size > 0 else 1
        return count


def vllm_engine(service: Service, compose: Compose, shipped: Shipped, notes: Notes) -> Engine | None:
    """None, with a note, where it cannot be said what it serves."""
    line = _with_config_file(parse(service.words), service, compose, notes)
    arguments = dict(line.arguments)
    models = list(line.models)
    for variable, name in rules.MEANT.items():
        value = service.environment.get(variable)
        if value and name in arguments:
            notes.corrected(service.label, f"{variable} is gone", f"nothing in the image reads it; {name} is given")
        elif value:
            arguments[name] = typed(name, value)
            notes.corrected(
                service.label, f"{variable} -> {name} = {arguments[name]!r}", "nothing in the image reads this variable"
            )
    if not models and service.environment.get(rules.MEANT_MODEL):
        models = [service.environment[rules.MEANT_MODEL]]
        notes.corrected(
            service.label, f"{rules.MEANT_MODEL} -> the model {models[0]}", "nothing in the image reads this variable"
        )
    if not models:
        notes.left_out(
            service.label,
            "the whole service",
            "its command line names no model; write it into the file, and import again",
        )
        return None
    for other in models[:-1]:
        notes.left_out(
            service.label,
            f"the model {other}",
            "two models on one command line are not served both: vLLM takes the last. Add an instance for it, with its own port",
        )
    model, root = _hub_model(models[-1], service, compose, shipped, notes)
    names = [*line.served] or [models[-1]]
    name = _served(names[0], model, service, notes)
    aliases = [other for other in names[1:] if _valid(ModelName, other)]
    for other in names[1:]:
        if other not in aliases:
            notes.left_out(
                service.label, f"the name {other}", "a gateway does not take such a name; clients have to change"
            )
    if aliases:
        model = model.model_copy(update={"aliases": tuple(aliases)})
    arguments = _arguments(arguments, service, shipped, model, notes)
    cards = arguments.get("tensor-parallel-size", 1), arguments.get("pipeline-parallel-size", 1)
    environment = _environment(service, notes, one_card=cards == (1, 1))
    for variable in (*rules.MEANT, rules.MEANT_MODEL):
        environment.pop(variable, None)
    image = _image(service, shipped.versions.of("vllm"), notes)
    return Engine(service, compose, "vllm", name, model, root, image, arguments, environment)


def ollama_engine(service: Service, compose: Compose, shipped: Shipped, notes: Notes) -> Engine | None:
    """None, with a note, where it serves nothing that a description can say."""
    known: dict[str, OllamaModel] = {
        name: model for name, model in {**OLLAMA, **shipped.models}.items() if isinstance(model, OllamaModel)
    }
    found, source = ollama_model(service, compose, known)
    if not found:
        why = "nothing in the file says which model it serves (by `ollama pull`, or EMBEDDING_MODEL of another service)"
        notes.left_out(service.label, "the whole service", why)
        return None
    name, _, tag = found.partition(":")
    model = known.get(name)
    if model is None:
        why = f"of Ollama a description knows embedding models ({', '.join(known)}); serve a chat model with vLLM"
        notes.left_out(service.label, f"the whole service, with {found}", why)
        return None
    notes.assumed(service.label, f"it serves {name}", source)
    if tag and tag != "latest":
        model = model.model_copy(update={"library": found})
    if model.parameters:
        settings = ", ".join(f"{key} {value}" for key, value in model.parameters.items())
        notes.corrected(
            service.label,
            f"{name} is served with {settings}",
            "Ollama cuts texts at 2048 tokens, without a word, unless it is told more",
        )
    root = _host_path(service.mount("/root/.ollama"), "", "ollama", service, compose, notes)
    image = _image(service, shipped.versions.of("ollama"), notes)
    return Engine(service, compose, "ollama", name, model, root, image, {}, _environment(service, notes, one_card=True))


def beside(compose: Compose, source: str) -> Path | None:
    """The file or directory that a mount's source means, looked for on this machine: where it is said to be, or beside the Compose file."""
    places = [compose.path.parent / source, compose.path.parent / Path(source).name]
    return next((place for place in places if place.exists()), None)


def _with_config_file(line: CommandLine, service: Service, compose: Compose, notes: Notes) -> CommandLine:
    """What a file given by --config says, under what the command line says itself."""
    given = line.arguments.pop("config", None)
    if not isinstance(given, str):
        return line
    mount = service.mount(given)
    inside = given.removeprefix(mount[1]).strip("/") if mount else ""
    place = beside(compose, mount[0]) if mount else None
    file = place / inside if place and inside else place
    try:
        text = file.read_text(encoding="utf-8") if file else None
        tree = yaml.safe_load(text) if text is not None else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        tree = None
    if not isinstance(tree, dict):
        notes.left_out(
            service.label,
            f"--config {given}",
            "the file is not there to be read, or holds no settings; write its keys into `arguments`",
        )
        return line
    yaml_file = given.endswith((".yaml", ".yml"))
    why = (
        "so that they are checked before a start"
        if yaml_file
        else "vLLM refuses a configuration file whose name does not end in .yaml"
    )
    notes.corrected(service.label, f"--config {given}: its keys are written as arguments", why)
    under = parse([word for key, value in tree.items() for word in _as_words(str(key), value)])
    return CommandLine(line.models or under.models, line.served or under.served, {**under.arguments, **line.arguments})


def _as_words(key: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{key}" if value else f"--no-{key}"]
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    if value is None:
        return []
    return [f"--{key}={json.dumps(value) if isinstance(value, dict) else value}"]


def _hub_model(named: str, service: Service, compose: Compose, shipped: Shipped, notes: Notes) -> tuple[HubModel, str]:
    """The model, and the directory of the host below which its files are."""
    is_path = named.startswith(("/", "."))
    mount = service.mount(named) if is_path else None
    below = named.removeprefix(mount[1]).strip("/") if mount else named.strip("/")
    directory = below.rpartition("/")[2] or (mount[0].rstrip("/").rpartition("/")[2] if mount else "")
    directory = re.sub(r"[^A-Za-z0-9_.-]", "_", directory).lstrip("_.-") or "model"
    root = _host_path(mount, below, "vllm", service, compose, notes)
    known = shipped.hub(directory)
    if not is_path and re.fullmatch(r"[\w.-]+/[\w.-]+", named):
        same = known if known and known.repository == named else None
        return same or HubModel(repository=named, directory=directory), root
    if known:
        return known, root
    owner = owner_of(directory)
    repository_ = f"{owner or 'unknown'}/{directory}"
    if owner:
        notes.assumed(
            service.label,
            f"{directory} is {repository_} of the hub",
            "its name begins as those of this owner do; Stoker compares the files with the hub's checksums",
        )
    else:
        notes.open(
            service.label,
            f"repository {repository_!r} of {directory} in all.py",
            "the file does not say whose model this is; write OWNER/NAME as the hub shows it",
        )
    return HubModel(repository=repository_, directory=directory), root


def _host_path(
    mount: tuple[str, str] | None, below: str, engine: EngineName, service: Service, compose: Compose, notes: Notes
) -> str:
    """The directory on the host that holds the models' directories."""
    source = mount[0].rstrip("/") if mount else ""
    if engine == "vllm" and mount:
        inner = below.rpartition("/")[0]
        source = (f"{source}/{inner}" if inner else source) if below else source.rpartition("/")[0]
    try:
        return str(TypeAdapter(AbsolutePath).validate_python(source))
    except ValidationError:
        where = MODELS[engine]
    if mount is None:
        why = "no directory of the host is mounted for it; the model is fetched there once, and verified"
    elif mount[0] in compose.volumes or not mount[0].startswith((".", "~", "/")):
        why = f"{mount[0]} is a volume of Docker's, and models lie in a directory of the host; they are fetched there once"
    else:
        why = f"{mount[0]} cannot be said without knowing where the Compose file lies on the host"
    notes.assumed(service.label, f"model_directory {where}", why)
    return where


def _served(name: str, model: HubModel, service: Service, notes: Notes) -> str:
    try:
        return str(TypeAdapter(ModelName).validate_python(name))
    except ValidationError:
        why = f"without --served-model-name it was asked for as {name}, which a gateway does not take; clients have to change"
        notes.corrected(service.label, f"it is served as {model.directory}", why)
        return model.directory


def _arguments(
    given: dict[str, Argument], service: Service, shipped: Shipped, model: HubModel, notes: Notes
) -> dict[str, Argument]:
    """What a description may say. Everything else is told."""
    found: dict[str, Argument] = {}
    card = shipped.cards.of(model)
    for name, value in given.items():
        if name == "task":
            if value in rules.POOLING_TASKS:
                found["runner"] = "pooling"
            notes.corrected(
                service.label,
                f"--task {value} -> {'runner = pooling' if value in rules.POOLING_TASKS else 'nothing'}",
                vllm.REMOVED["task"],
            )
        elif name == "trust-remote-code" and isinstance(card, ModelCard) and "auto_map" in card.config:
            found[name] = value
        elif name in rules.DROPPED:
            notes.corrected(service.label, f"--{name} is gone", rules.DROPPED[name])
        elif name in vllm.REMOVED:
            notes.corrected(service.label, f"--{name} is gone", vllm.REMOVED[name])
        else:
            found[name] = value
    for name, reason, remedy in vllm.problems_of(found, str(vllm.known()["version"])):
        if name in found:
            del found[name]
            notes.left_out(service.label, f"--{name}", f"{reason}; {remedy}")
    for name in [name for name, value in found.items() if _is_secret(name, value)]:
        del found[name]
        notes.left_out(service.label, f"--{name}", f"its value holds a secret, and {_NO_SECRETS}")
    return found


def _is_secret(name: str, value: Argument) -> bool:
    """The names of arguments themselves are known and harmless; a key below one, ``hf-overrides.api_key``, may be anything."""
    if not isinstance(value, str):
        return False
    key = name.partition(".")[2]
    return secrets.by_value(value) or (secrets.by_name(key) and not value.isdecimal())


def _environment(service: Service, notes: Notes, one_card: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in service.environment.items():
        if name.upper() in rules.VARIABLES:
            notes.corrected(service.label, f"{name} is gone", rules.VARIABLES[name.upper()])
        elif one_card and name in rules.ONE_CARD:
            notes.corrected(service.label, f"{name} is gone", rules.WHY_ONE_CARD)
        elif secrets.by_name(name):
            notes.left_out(service.label, name, f"by its name it holds a secret, and {_NO_SECRETS}")
        elif secrets.by_value(value):
            notes.left_out(service.label, name, f"its value holds a secret, and {_NO_SECRETS}")
        elif not _valid(EnvironmentName, name):
            notes.left_out(service.label, repr(name), "it is no name of a variable")
        else:
            found[name] = value
    return found


def _valid(kind: Any, value: object) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def _image(service: Service, pinned: str, notes: Notes) -> str | None:
    """The service's own image where it names a release; None: the fleet's."""
    image = service.image
    if service.built:
        notes.left_out(
            service.label,
            "what its Dockerfile adds",
            f"the image that it begins with is used: {image}; an image of your own is named by `image`",
        )
    if image == pinned:
        return None
    if _valid(Image, image) and not engine_version(image).assumed:
        if repository(image) == repository(pinned):
            notes.assumed(
                service.label,
                f"image {image} stays",
                f"it is another release than the one that is tried here, {pinned}",
            )
        return image
    notes.corrected(
        service.label, f"image {image} -> {pinned}", f"a tag that moves changes under you; {_why_pinned(pinned)}"
    )
    return None


def _why_pinned(pinned: str) -> str:
    if "vllm" in pinned:
        return "v0.19.1 is the last vLLM with code for the V100 (compute capability 7.0)"
    return (
        "this is the release that is tried here; on a P40 it needs driver 570 or newer, or it serves from the processor"
    )

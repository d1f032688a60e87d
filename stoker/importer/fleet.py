"""Compose files of one or more hosts as a fleet. Pure but for files beside the Compose files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stoker.draft.cards import HostCards
from stoker.draft.draft import Draft, Group, named_apart
from stoker.draft.gateways import unique
from stoker.draft.objections import objections
from stoker.draft.shipped import Shipped
from stoker.importer import gateways
from stoker.importer.compose import Compose, Service, read
from stoker.importer.engine import Engine, ollama_engine, vllm_engine
from stoker.importer.engines import WEB_UI_ALONE, role, why_not
from stoker.importer.errors import CannotImport
from stoker.importer.hosts import Placed, place
from stoker.importer.notes import Notes
from stoker.plan.checks import compatibility
from stoker.plan.compatibility import Answer, answers
from stoker.plan.look import Look
from stoker.spec.fleet import Fleet
from stoker.spec.gateway import Gateway
from stoker.spec.instance import Instance
from stoker.spec.settings import AnyModel
from stoker.spec.stack import GpuHardware, Stack
from stoker.spec.web_ui import WebUi

#: Of a host whose cards nobody has named. A deploy refuses it and says what is there.
UNKNOWN_CARD, UNKNOWN_GIB = "unknown", 24


@dataclass(frozen=True)
class Source:
    """A Compose file, and where it runs. An empty address: it was not said."""

    path: Path
    address: str = ""
    cards: HostCards | None = None


@dataclass(frozen=True)
class Imported:
    """The fleet, and what was done to get it."""

    draft: Draft
    notes: Notes


@dataclass
class _Host:
    address: str
    cards: HostCards | None
    engines: list[Engine]
    gateways: list[gateways.Found]
    #: Open WebUI: the service, and the file that it is in.
    web_uis: list[tuple[Service, Compose]] = field(default_factory=list)
    #: Ports that services which stay behind publish.
    foreign_ports: set[int] = field(default_factory=set)

    @property
    def shared_ports(self) -> dict[int, int]:
        """Compose file -> the port that replicas of a service of it were to share, where no nginx is in front of them."""
        fronted = {id(one.compose) for one in self.gateways}
        return {
            id(engine.compose): port
            for engine in reversed(self.engines)
            if engine.service.replicas > 1 and id(engine.compose) not in fronted
            for port, _ in engine.service.ports[:1]
            if port
        }


def import_files(sources: Sequence[Source], shipped: Shipped) -> Imported:
    """Raises CannotImport."""
    notes = Notes()
    hosts: dict[str, _Host] = {}
    composes = []
    for source in sources:
        compose = read(source.path, notes)
        composes.append(compose)
        address = source.address or compose.project
        if not source.address:
            notes.assumed(
                "",
                f"the host of {source.path.name} is {address}",
                "--inventory-address was not given; write its address into inventory.py",
            )
        host = hosts.setdefault(address, _Host(address, source.cards, [], []))
        if host.cards != source.cards:
            raise CannotImport(_cards_differ(host, source))
        _sort(compose, host, shipped, notes)
    if not any(host.engines for host in hosts.values()):
        raise CannotImport(
            "\n".join(["no service of these files can be said in a description; nothing was written", *notes.lines()])
        )
    names, models = _names([engine for host in hosts.values() for engine in host.engines], notes)
    placed: dict[str, Sequence[Placed]] = {}
    for host in hosts.values():
        _lone_web_uis(host, notes)
        taken = [port for one in host.gateways for port, _ in one.service.ports if port]
        taken += [*host.shared_ports.values(), *host.foreign_ports]
        taken += [_web_ui_port(service) for service, _ in host.web_uis]
        placed[host.address] = place(host.engines, taken, host.cards, names, notes)
    groups = [_group(host, placed, shipped, notes) for host in hosts.values() if host.engines]
    for host in hosts.values():
        for found in host.gateways if not host.engines else ():
            notes.left_out(
                found.service.label,
                "the whole service",
                "a gateway stands beside the engines of a stack, and this host has none",
            )
    draft = Draft(tuple(named_apart(groups)), models)
    for compose in composes:
        _new_addresses(compose, placed, notes)
    _objections(draft, hosts, shipped, notes)
    return Imported(draft, notes)


def _cards_differ(host: _Host, source: Source) -> str:
    before, now = (cards.words if cards else "unknown" for cards in (host.cards, source.cards))
    return (
        f"{source.path}: --cards says {now} for it, and {before} for an earlier file of the same host, {host.address}; "
        "give the files of one host the same --cards, and those of another an --inventory-address of their own"
    )


def _sort(compose: Compose, host: _Host, shipped: Shipped, notes: Notes) -> None:
    """Each service of a file as what it is."""
    for service in compose.services:
        if not service.replicas:
            notes.left_out(service.label, "the whole service", "it has 0 replicas, so it does not run")
            continue
        match role(service.image):
            case "vllm":
                engine = vllm_engine(service, compose, shipped, notes)
            case "ollama":
                engine = ollama_engine(service, compose, shipped, notes)
            case "nginx":
                host.gateways.append(gateways.find(service, compose, host.address, notes))
                _general(service, notes)
                continue
            case "web-ui":
                host.web_uis.append((service, compose))
                continue
            case _:
                notes.left_out(
                    service.label, f"the whole service ({service.image or 'without an image'})", why_not(service.image)
                )
                engine = None
        if engine:
            host.engines.append(engine)
            _general(service, notes)
        else:
            host.foreign_ports |= {port for port, _ in service.ports if port}


def _general(service: Service, notes: Notes) -> None:
    """What Stoker sets for every container itself."""
    had = f"restart: {service.restart}" if service.restart else "no restart policy"
    if role(service.image) == "vllm":
        notes.corrected(
            service.label,
            f"{had} -> always, and one start at a time on a card",
            "two that start together on one card mis-measure its memory, also after a crash and a reboot, where Docker knows no order",
        )
    elif service.restart != "always":
        notes.corrected(service.label, f"{had} -> always", "a container comes back after a crash and a reboot")
    if service.closed and role(service.image) != "nginx":
        notes.open(
            service.label,
            f"{service.closed} open to everybody now",
            'write firewall = "engines" into all.py: then only the host itself and the gateways reach it',
        )
    for key in service.others:
        notes.left_out(
            service.label, key, "Stoker sets what its containers need; what else this did, it does not do any more"
        )


def _names(engines: Sequence[Engine], notes: Notes) -> tuple[dict[Engine, str], dict[str, AnyModel]]:
    """Engine -> the name of its model; one name means one model in the whole fleet."""
    names: dict[Engine, str] = {}
    models: dict[str, AnyModel] = {}
    for engine in engines:
        name = engine.name
        if models.setdefault(name, engine.model) != engine.model:
            name = next(
                other
                for number in range(1, 100)
                if models.setdefault(
                    other := f"{engine.name}-{engine.engine}{number if number > 1 else ''}", engine.model
                )
                == engine.model
            )
            notes.corrected(
                engine.service.label,
                f"{engine.name} is served as {name}",
                "another service serves another model, or by another engine, under that name",
            )
        names[engine] = name
    return names, models


def _group(host: _Host, placed: dict[str, Sequence[Placed]], shipped: Shipped, notes: Notes) -> Group:
    stacks: dict[tuple[int, str], list[Placed]] = {}
    for one in placed[host.address]:
        stacks.setdefault((id(one.engine.compose), one.engine.model_directory), []).append(one)
    gateway_of = _gateways(host, placed, shipped, notes)
    found: list[Stack] = []
    found_in: dict[str, Compose] = {}  # project -> the file that has it
    for (compose_id, directory), members in stacks.items():
        compose = members[0].engine.compose
        project, why = _project(compose, members[0].instance.engine, found_in)
        if project != compose.project:
            notes.corrected(members[0].engine.service.label, f"project {project}", why)
        found_in[project] = compose
        stack = Stack(
            project=project,
            compose_file=compose.path.name,
            model_directory=directory,
            instances=tuple(one.instance for one in members),
            gateway=gateway_of.pop(compose_id, None),
            web_ui=_web_ui(host, members, notes),
        )
        found.append(stack)
    kinds = {gateways.kind_of(one, shipped.cards) for one in placed[host.address]}
    name = "llm" if kinds == {"chat"} else "embedding" if kinds == {"embeddings"} else "serving"
    files = ", ".join(dict.fromkeys(one.engine.compose.path.name for one in placed[host.address]))
    return Group(
        name,
        f"What {files} described, imported.",
        {host.address: {}},
        _hardware(host, placed[host.address], notes),
        tuple(found),
    )


def _lone_web_uis(host: _Host, notes: Notes) -> None:
    """Those that no Ollama of their file is for stay behind, and a second one too."""
    for service, compose in list(host.web_uis):
        ollamas = [one for one in host.engines if one.compose is compose and one.engine == "ollama"]
        first = next(one for one, other in host.web_uis if other is compose)
        if not ollamas or first is not service:
            notes.left_out(service.label, f"the whole service ({service.image})", WEB_UI_ALONE)
            host.web_uis.remove((service, compose))
            host.foreign_ports |= {port for port, _ in service.ports if port}


def _web_ui_port(service: Service) -> int:
    return next((port for port, _ in service.ports if port), WebUi.model_fields["port"].default)


def _web_ui(host: _Host, members: Sequence[Placed], notes: Notes) -> WebUi | None:
    """The page of a stack's file, in the stack that has the Ollama."""
    compose = members[0].engine.compose
    found = [service for service, other in host.web_uis if other is compose]
    if not found or all(one.instance.engine != "ollama" for one in members):
        return None
    (service,) = found
    notes.corrected(
        service.label,
        f"{service.image} -> the pinned release, accounts on",
        "a tag that moves changes under you, and whoever reaches the page administers the models",
    )
    if service.mounts:
        notes.open(
            service.label,
            "its accounts and conversations begin anew, in a Docker volume of the stack",
            "copy what is in "
            + ", ".join(source for source, _ in service.mounts)
            + " there after the first deploy, if you want to keep it",
        )
    for key in service.others:
        notes.left_out(service.label, key, "Stoker sets what its containers need")
    name = service.container or f"{compose.project}-{service.name}-1"
    return WebUi(container=name[:63], service=service.name.lower(), port=_web_ui_port(service))


def _project(compose: Compose, engine: str, found_in: Mapping[str, Compose]) -> tuple[str, str]:
    """A name that no other stack of the host has, and why it is another than the file's."""
    if any(other is compose for other in found_in.values()):
        why = "a stack has one directory of models, and this one's is another"
        return unique(f"{compose.project}-{engine}", found_in), why
    project = unique(compose.project, found_in)
    other = found_in.get(compose.project, compose).path.name
    return (
        project,
        f"{other} has the project {compose.project} on this host; a stack of each file needs a name of its own",
    )


def _gateways(host: _Host, placed: dict[str, Sequence[Placed]], shipped: Shipped, notes: Notes) -> dict[int, Gateway]:
    """Compose file -> its gateway. One whose own file has no engine goes to the host's first that has none."""
    free = [*dict.fromkeys(id(one.engine.compose) for one in placed[host.address])]
    found: dict[int, Gateway] = {}
    used = {one.instance.port for one in placed[host.address]} | host.foreign_ports | {*host.shared_ports.values()}
    used |= {port for one in host.gateways for port, _ in one.service.ports if port}
    for one in host.gateways:
        own = id(one.compose)
        place_ = own if own in free else next(iter(free), None)
        if place_ is None:
            notes.left_out(one.service.label, "the whole service", "a stack has one gateway")
            continue
        made = gateways.gateway(one, placed, shipped.cards, str(shipped.versions.nginx), used, notes)
        if made:
            used.add(made.port)
            found[place_] = made
            free.remove(place_)
    for compose_id, port in host.shared_ports.items():
        members = [
            one
            for one in placed[host.address]
            if id(one.engine.compose) == compose_id and one.engine.service.replicas > 1
        ]
        if compose_id in free:
            found[compose_id] = gateways.for_replicas(members, host.address, port, shipped.cards, notes)
    return found


def _hardware(host: _Host, placed: Sequence[Placed], notes: Notes) -> GpuHardware:
    if host.cards:
        return host.cards.hardware
    indices = [gpu for one in placed for gpu in one.instance.gpus if isinstance(gpu, int)]
    others = {gpu for one in placed for gpu in one.instance.gpus if not isinstance(gpu, int)}
    count = max([*(index + 1 for index in indices), len(others), 1])
    notes.open(
        "",
        f"gpus of {host.address}: {count} x {UNKNOWN_CARD}",
        "a Compose file does not name cards; give --cards '3 x V100-32GB', or write what `nvidia-smi` says there",
    )
    return GpuHardware(count=min(count, 16), card=UNKNOWN_CARD, memory_gib=UNKNOWN_GIB)


def _new_addresses(compose: Compose, placed: dict[str, Sequence[Placed]], notes: Notes) -> None:
    """Services that stay behind and speak to an engine by its name on the Compose network."""
    for service in compose.services:
        if role(service.image) != "other":
            continue
        text = " ".join(service.environment.values())
        for address, ones in placed.items():
            reached: dict[str, list[int]] = {}
            for one in ones:
                for name in {one.engine.service.name, one.engine.service.container} - {""}:
                    if one.engine.compose is compose and f"//{name}:" in text:
                        reached.setdefault(name, []).append(one.instance.port)
            for name, ports in reached.items():
                new = " or ".join(f"http://{address}:{port}" for port in ports)
                notes.open(
                    service.label,
                    f"http://{name}:... -> {new}",
                    "it is not on the Compose network of the engines any more; ask by the host's address, best the gateway's",
                )


def _objections(draft: Draft, hosts: dict[str, _Host], shipped: Shipped, notes: Notes) -> None:
    """What a deploy would say of these models on these cards."""
    fleet: Fleet = draft.fleet(shipped.versions)
    for host in fleet.hosts:
        cards = hosts[host.name].cards
        if cards is None:
            continue
        for reason in objections(host, cards.state(), shipped.cards):
            notes.open(reason.instance, reason.reason, reason.remedy)
        look = Look(host, cards.state(), 0, shipped.cards)
        for _, instance in host.instances():
            for answer in _by_name(look, instance):
                notes.open(instance.name, answer.reason, answer.remedy)


def _by_name(look: Look, instance: Instance) -> list[Answer]:
    """What is said of AWQ weights, where the model has no card and only its name tells of them."""
    model = look.host.model_of(instance)
    asked = compatibility.question(look, instance, look.state.gpus[0])
    if look.cards is None or look.cards.of(model) or asked.method or "awq" not in asked.model.lower():
        return []
    return [answer for answer in answers(replace(asked, quantization="awq")) if answer.row == "awq"]

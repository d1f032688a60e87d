"""The engines of one host, with cards, ports and names that do not clash. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stoker.draft.cards import HostCards
from stoker.draft.gateways import unique
from stoker.engine.registry import engine_of
from stoker.importer.compose import Wish
from stoker.importer.engine import Engine
from stoker.importer.errors import CannotImport
from stoker.importer.notes import Notes
from stoker.spec.gpu_name import GpuName
from stoker.spec.instance import Instance
from stoker.spec.vllm import Argument

#: Where ports are looked for when a service publishes none.
_FIRST_PORT = {"vllm": 8000, "ollama": 11434}

#: What all of vLLM's instances on a card may take together, and what one takes that does not say it (v0.19.1).
_MOST, _DEFAULT = 0.9, 0.9

#: Compute capability from which on cards have bfloat16.
_BFLOAT16 = (8, 0)


@dataclass(frozen=True)
class Placed:
    """An engine, and the instance that it becomes."""

    engine: Engine
    instance: Instance


def place(
    engines: Sequence[Engine], taken: Iterable[int], cards: HostCards | None, names: Mapping[Engine, str], notes: Notes
) -> list[Placed]:
    """``taken``: ports of the gateways and of what stays behind. ``cards``: None where they are not known. ``names``: how each one's model is called.

    Raises CannotImport for a card that is not there.
    """
    copies = [(engine, number) for engine in engines for number in range(engine.service.replicas)]
    wanted = {port for engine in engines for port, _ in engine.service.ports if port}
    used = set(taken)
    gpus = _Gpus(cards, [engine for engine, _ in copies])
    found: list[Placed] = []
    for engine, number in copies:
        port = _port(engine, number, used, wanted, notes)
        used.add(port)
        mine = gpus.of(engine, number, notes)
        name = _name(engine, number, {one.instance.name for one in found}, notes)
        instance = _instance(engine, number, name, names[engine], port, mine, _arguments(engine, mine, cards, notes))
        found.append(Placed(engine, instance))
        if engine.service.replicas > 1:
            notes.corrected(
                engine.service.label,
                f"{instance.name} on port {port}, GPU {_numbers(mine)}",
                "replicas cannot share a published port; each has its own",
            )
    return _within_the_card(found, notes)


def _arguments(engine: Engine, mine: Sequence[GpuName], cards: HostCards | None, notes: Notes) -> dict[str, Argument]:
    """Those that depend on the cards set right."""
    found, label = dict(engine.arguments), engine.service.label
    if engine.engine == "vllm" and len(mine) != engine.cards:
        found["tensor-parallel-size"] = len(mine)
        found.pop("pipeline-parallel-size", None)
        notes.corrected(
            label, f"tensor-parallel-size {len(mine)}", f"it was to use {engine.cards} cards and has {len(mine)}"
        )
    if found.get("dtype") == "bfloat16" and cards and cards.kind.capability < _BFLOAT16:
        found["dtype"] = "half"
        notes.corrected(label, "dtype bfloat16 -> half", f"a {cards.kind.card} cannot compute in bfloat16")
    return found


def _instance(
    engine: Engine,
    number: int,
    container: str,
    model: str,
    port: int,
    mine: Sequence[GpuName],
    arguments: Mapping[str, Argument],
) -> Instance:
    service = engine.service
    instance = Instance(
        name=container,
        engine=engine.engine,
        model=model,
        gpus=tuple(mine),
        port=port,
        image=engine.image,
        arguments=dict(arguments),
        environment=dict(engine.environment),
    )
    name = (service.name if service.replicas == 1 else f"{service.name}-{number + 1}").lower()
    return instance if name == instance.service_name else instance.model_copy(update={"service": name})


def _name(engine: Engine, number: int, taken: Container[str], notes: Notes) -> str:
    """Files of one directory may have services of the same name, and a host has each name once."""
    wanted = _container(engine, number)
    name = unique(wanted, taken)
    if name != wanted:
        notes.corrected(
            engine.service.label, f"container {wanted} -> {name}", "another container of this host has that name"
        )
    return name


def _container(engine: Engine, number: int) -> str:
    """As Compose names containers."""
    service = engine.service
    if service.container:
        return service.container if service.replicas == 1 else f"{service.container}_{number}"
    return f"{engine.compose.project}-{service.name}-{number + 1}"[:63]


def _port(engine: Engine, number: int, used: set[int], wanted: set[int], notes: Notes) -> int:
    service = engine.service
    inside = engine_of(engine.engine).port
    published = [port for port, target in service.ports if port and target == inside] or [
        port for port, _ in service.ports if port
    ]
    asked = published[0] if published else None
    if asked and asked not in used:
        return asked
    start = asked or _FIRST_PORT[engine.engine]
    free = next(port for port in range(start, 65536) if port not in used and port not in wanted)
    if asked and service.replicas == 1:
        notes.corrected(service.label, f"port {asked} -> {free}", "another container of this host has that port")
    elif number == 0:
        notes.assumed(
            service.label, f"port {free}", "the file publishes none on the host, and gateways reach an instance there"
        )
    return free


class _Gpus:
    """Hands out cards in the order of the services."""

    def __init__(self, cards: HostCards | None, engines: Sequence[Engine]) -> None:
        named = {index for engine in engines for index in _indices(engine.service.cards)}
        #: As many as there are, or as the files speak of.
        self.count = cards.count if cards else max([*named, *(engine.cards - 1 for engine in engines), 0]) + 1
        #: How often each card was given to somebody.
        self._load = dict.fromkeys(range(self.count), 0)
        if cards and any(index >= cards.count for index in named):
            raise CannotImport(
                f"a service is given GPU {max(named)}, counted from 0, and --cards says {cards.words}; correct one of them"
            )

    def of(self, engine: Engine, number: int, notes: Notes) -> list[GpuName]:
        """As many as the engine computes on: those that are named, else those that fewest others have."""
        label, wish = engine.service.label, engine.service.cards
        if wish.names:
            names: list[GpuName] = [int(name) if name.isdecimal() else name for name in wish.names]
            if engine.engine == "vllm" and len(names) > engine.cards:
                why = f"vLLM computes on as many as tensor-parallel-size says, {engine.cards}"
                notes.corrected(label, f"GPU {_numbers(names[: engine.cards])} of {_numbers(names)}", why)
                names = names[: engine.cards]
            self._count(names)
            return names
        size = engine.cards if engine.engine == "vllm" else wish.count or 1
        free = sorted(self._load, key=lambda index: (self._load[index], index))[:size]
        chosen: list[GpuName] = [*sorted(free)]
        self._count(chosen)
        if number == 0:
            how_many = "the file says how many cards, not which; an instance keeps the same one"
            none = "the file gives it none, and an engine here computes on a card"
            notes.assumed(label, f"GPU {_numbers(chosen)}", how_many if wish else none)
        return chosen

    def _count(self, names: Iterable[GpuName]) -> None:
        for name in names:
            if isinstance(name, int):
                self._load[name] = self._load.get(name, 0) + 1


def _numbers(names: Iterable[GpuName]) -> str:
    return ", ".join(map(str, names))


def _indices(wish: Wish) -> list[int]:
    return [int(name) for name in wish.names if name.isdecimal()]


def _within_the_card(placed: list[Placed], notes: Notes) -> list[Placed]:
    """vLLM's instances on one card with shares that fit beside each other."""
    load: dict[GpuName, float] = defaultdict(float)
    for one in placed:
        if one.instance.engine == "vllm":
            for gpu in one.instance.gpus:
                load[gpu] += _share(one.instance)
    return [_smaller(one, max(load[gpu] for gpu in one.instance.gpus), notes) for one in placed]


def _smaller(one: Placed, fullest: float, notes: Notes) -> Placed:
    """``fullest``: what all want of the fullest of its cards."""
    if one.instance.engine != "vllm" or fullest <= 1 + 1e-9:
        return one
    old = _share(one.instance)
    share = math.floor(round(100 * old * _MOST / fullest, 6)) / 100
    notes.corrected(
        one.engine.service.label,
        f"gpu-memory-utilization {old:g} -> {share:g}",
        f"vLLM's instances on one card want {fullest:g} of it together, and the last would not start",
    )
    arguments = {**one.instance.arguments, "gpu-memory-utilization": share}
    return Placed(one.engine, one.instance.model_copy(update={"arguments": arguments}))


def _share(instance: Instance) -> float:
    share = instance.arguments.get("gpu-memory-utilization")
    return float(share) if isinstance(share, int | float) else _DEFAULT

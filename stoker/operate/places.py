"""What a person names: an instance or a gateway, and where it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from stoker.spec.fleet import Fleet, Host
from stoker.spec.instance import Instance
from stoker.spec.stack import Stack
from stoker.steps.stack import member_name


class UnknownName(Exception):
    """Nothing that is described has this name; the text says what there is."""


@dataclass(frozen=True)
class Place:
    """A container of one host. ``name`` is unique in the fleet: with ``@host`` where another host has one of the same name."""

    host: Host
    container: str
    name: str
    instance: Instance | None = None  #: None: a gateway, or a web UI

    @property
    def engine(self) -> str:
        return self.instance.engine if self.instance else "nginx"


def every(fleet: Fleet) -> list[Place]:
    """All instances, web UIs and gateways, host by host."""
    found = []
    beside = [name for host in fleet.hosts for stack in host.stacks for name in _beside(stack)]
    for host in fleet.hosts:
        found += [Place(host, one.name, member_name(fleet, host, one), one) for _, one in host.instances()]
        for stack in host.stacks:
            for name in _beside(stack):
                found.append(Place(host, name, name if beside.count(name) == 1 else f"{name}@{host.name}"))
    return found


def _beside(stack: Stack) -> list[str]:
    """Its containers that are no engines."""
    engines = {instance.name for instance in stack.instances}
    return [name for name in stack.containers if name not in engines]


def named(fleet: Fleet, names: Collection[str]) -> list[Place]:
    """What the names mean, in the order of the description; namesakes on two hosts are all meant. Raises UnknownName."""
    places = every(fleet)
    unknown = [name for name in names if not any(name in (place.name, place.container) for place in places)]
    if unknown:
        known = ", ".join(dict.fromkeys(_ways(places)))
        raise UnknownName(f"No host has {' or '.join(unknown)}; there are {known}.")
    return [place for place in places if place.name in names or place.container in names]


def _ways(places: Collection[Place]) -> Iterator[str]:
    for place in places:
        yield place.container
        yield place.name

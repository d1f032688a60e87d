"""Where each model of a fleet is reached, from outside or from a container beside its gateway. Contacts nothing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from stoker.smoke.curl import Key
from stoker.smoke.target import GATEWAY_KEY, Entrance, Member, base_url, entrances, kind_of, members
from stoker.spec.fleet import Fleet, Host
from stoker.spec.gateway import Gateway, Kind, Pool, without_latest
from stoker.spec.stack import Stack

#: From where Docker takes the networks of Compose projects unless it is told otherwise (moby 28: 172.17.0.0/16 to 172.31.0.0/16 first).
_DOCKER_NETWORKS = ipaddress.ip_network("172.16.0.0/12")


class NoEndpoints(Exception):
    """What was asked for cannot be told of this fleet."""


@dataclass(frozen=True)
class Endpoint:
    """One model as an application reaches it."""

    #: Lower-case letters, digits and dashes; each once.
    name: str
    kind: Kind
    model: str
    #: OpenAI's base URL: ends with ``/v1``.
    base_url: str
    #: None: no key is needed. Without a value: it is not known here.
    key: Key | None = None
    #: The one of its kind for applications that know only one.
    default: bool = False
    #: Length of the vectors where the description says it.
    dimensions: int | None = None
    #: A service elsewhere answers, with names of its own.
    foreign: bool = False


@dataclass(frozen=True)
class Endpoints:
    """Every model of a fleet, as seen from one place."""

    endpoints: tuple[Endpoint, ...]
    #: The gateway's address, without a path; None in a fleet without a gateway.
    unified_url: str | None = None
    #: The Docker network that a container must be in to use these addresses, and its host; None: any client.
    network: str | None = None
    host: str | None = None
    #: What a person has to know before they work, a sentence each.
    notes: tuple[str, ...] = ()


def find(fleet: Fleet, *, containers: bool = False, gateway: str = "") -> Endpoints:
    """The endpoints for clients anywhere, or for ``containers`` in the Compose network of the gateway.

    ``gateway`` names the gateway's container; without it, the one with the most models is used. A gateway's key is known if it is in
    $STOKER_KEY. Raises NoEndpoints.
    """
    main = _main(fleet, gateway)
    place = _Place(fleet, main, containers)
    found = _named([*place.of_gateways(), *place.of_instances()])
    if not found:
        raise NoEndpoints("The description has no instance and no gateway: there is nothing to reach.")
    return Endpoints(
        endpoints=tuple(found),
        unified_url=place.root(main) if main else None,
        network=f"{place.home[1].project}_default" if containers else None,
        host=place.home[0].name if containers else None,
        notes=tuple(_notes(fleet, main, place, found)),
    )


@dataclass(frozen=True)
class _Place:
    """From where the fleet is looked at."""

    fleet: Fleet
    main: Entrance | None
    containers: bool

    @property
    def home(self) -> tuple[Host, Stack]:
        """Whose network the containers are in: the main gateway's, else the first stack's."""
        pairs = [(host, stack) for host in self.fleet.hosts for stack in host.stacks]
        return next((pair for pair in pairs if self.main and pair[1].gateway is self.main.gateway), pairs[0])

    def root(self, entrance: Entrance) -> str:
        """A gateway's address without a path."""
        gateway = entrance.gateway
        if self._beside(entrance.host, gateway) and gateway.plain_port:
            return base_url(gateway.service, gateway.plain_port)
        return entrance.url

    def of_gateways(self) -> Iterator[Endpoint]:
        """The pools of the main gateway, then of others what that one has not."""
        seen: set[str] = set()
        others = [entrance for entrance in entrances(self.fleet) if entrance != self.main]
        for entrance in [self.main, *others] if self.main else []:
            for pool in entrance.gateway.pools:
                if without_latest(pool.model) not in seen:
                    seen.add(without_latest(pool.model))
                    yield self._of_pool(entrance, pool)

    def of_instances(self) -> Iterator[Endpoint]:
        """Models that no gateway has, each at its first instance."""
        seen = {pool.model for entrance in entrances(self.fleet) for pool in entrance.gateway.pools}
        for member in members(self.fleet):
            model = member.instance.model
            if model not in seen:
                seen.add(model)
                yield Endpoint(
                    name=_slug(model.rpartition("/")[2]),
                    kind=kind_of(self.fleet, member.instance),
                    model=model,
                    base_url=f"{self._of_instance(member)}/v1",
                    key=member.key,
                    dimensions=member.dimensions,
                )

    def _of_pool(self, entrance: Entrance, pool: Pool) -> Endpoint:
        # A pool that is not the default is named by the path too: for applications that send another model's name, or none.
        prefix = pool.prefix if pool.prefix and not pool.default else ""
        return Endpoint(
            name=_slug(pool.name),
            kind=pool.kind,
            model=pool.model,
            base_url=f"{self.root(entrance)}{prefix}/v1",
            key=(entrance.key or Key(GATEWAY_KEY, "")) if entrance.gateway.keys else None,
            default=pool.default and entrance is self.main,
            dimensions=pool.external.dimensions if pool.external else _dimensions(entrance.host, pool.model),
            foreign=pool.external is not None,
        )

    def _of_instance(self, member: Member) -> str:
        instance = member.instance
        if self.containers and member.host is self.home[0] and instance in self.home[1].instances:
            return base_url(instance.service_name, instance.container_port)
        return member.url

    def _beside(self, host: Host, gateway: Gateway) -> bool:
        return self.containers and host is self.home[0] and gateway is self.home[1].gateway


def _main(fleet: Fleet, name: str) -> Entrance | None:
    known = list(entrances(fleet))
    if not name:
        return max(known, key=lambda entrance: len(entrance.gateway.pools), default=None)
    for entrance in known:
        if entrance.gateway.container == name:
            return entrance
    names = ", ".join(entrance.gateway.container for entrance in known) or "none at all"
    raise NoEndpoints(f"The fleet has no gateway {name}; it has {names}.")


def _named(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Each name once, and one default of each kind."""
    taken: set[str] = set()
    named = []
    for endpoint in endpoints:
        peers = [other for other in endpoints if other.kind == endpoint.kind]
        alone = endpoint is peers[0] and not any(peer.default for peer in peers)
        named.append(replace(endpoint, name=unique(endpoint.name, taken, "-"), default=endpoint.default or alone))
    return named


def unique(name: str, taken: set[str], separator: str) -> str:
    """The name, with a number where it is taken; ``taken`` gets it."""
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name}{separator}{number}"
    taken.add(found)
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", without_latest(name).lower()).strip("-")


def _dimensions(host: Host, name: str) -> int | None:
    model = host.settings.models.get(name)
    return model.dimensions if model else None


def _notes(fleet: Fleet, main: Entrance | None, place: _Place, found: list[Endpoint]) -> Iterator[str]:
    if main and main.gateway.keys:
        yield (
            f"{main.gateway.container} wants a key, and only hashes of its keys are kept: put the application's own into {GATEWAY_KEY} "
            "(`stoker key new NAME` makes one)."
        )
    if main and main.gateway.tls and not main.gateway.tls.domain and not place.containers:
        yield f"The certificate of {main.gateway.container} must be for {main.host.address}; else write its name as tls.domain."
    if main and place.containers and not _admits_containers(main.gateway):
        yield (
            f"{main.gateway.container} admits none of the addresses that Docker usually gives to containers: add the subnet of "
            "the network to allowed_networks, or the answer is 403."
        )
    for pool, external in main.gateway.externals if main else ():
        yield f"{pool.model} is answered by {external.host}: what is sent there leaves this fleet."
    of_gateways = {pool.model for entrance in entrances(fleet) for pool in entrance.gateway.pools}
    for endpoint in found:
        instances = fleet.members(endpoint.model)
        if endpoint.model in of_gateways:
            continue
        host, instance = instances[0]
        if len(instances) > 1:
            yield f"{len(instances)} instances serve {endpoint.model} without a gateway: this is {instance.name} alone."
        if host.settings.firewall == "engines" and not place.containers:
            yield f"The port of {instance.name} is closed to all but gateways and engine_networks (firewall)."


def _admits_containers(gateway: Gateway) -> bool:
    return any(
        network.version == 4 and network.overlaps(_DOCKER_NETWORKS)
        for network in map(ipaddress.ip_network, gateway.allowed_networks)
    )

"""What must hold between a fleet's gateways and its hosts: members that exist and are alike, addresses that lead there, who may come in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from stoker.engine.registry import engine_of
from stoker.spec.checks import LOCAL_ADDRESS
from stoker.spec.fleet import LOCAL, Fleet, Host
from stoker.spec.gateway import Gateway, Kind, Pool
from stoker.spec.instance import Instance
from stoker.spec.problems import Problem
from stoker.spec.settings import FilesModel


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
        yield Problem(origin("address"), "address", repr(host.address), reason, LOCAL_ADDRESS)


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

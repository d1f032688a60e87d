"""Where the requests of a check go: addresses, kinds, limits and keys, all from the description."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from stoker.engine.registry import engine_of
from stoker.keys.make import hash_of
from stoker.smoke.curl import Key
from stoker.spec.fleet import Fleet, Host, at
from stoker.spec.gateway import Gateway, Kind, Pool
from stoker.spec.instance import Instance
from stoker.spec.settings import OllamaModel

#: Holds one of a gateway's keys, for the requests that go through it.
GATEWAY_KEY = "STOKER_KEY"


@dataclass(frozen=True)
class Member:
    """An instance as requests reach it."""

    host: Host
    instance: Instance
    #: The gateway's, for requests that go through one that has keys.
    gateway_key: Key | None = None

    @property
    def url(self) -> str:
        return base_url(self.host.address, self.instance.port)

    @property
    def key(self) -> Key | None:
        if self.gateway_key:
            return self.gateway_key
        variable = engine_of(self.instance.engine).key_variable
        value = self.instance.environment.get(variable)
        return Key(variable, value) if value else None

    @property
    def dimensions(self) -> int | None:
        """Length of the model's vectors where the description gives it."""
        return self.host.model_of(self.instance).dimensions

    @property
    def context(self) -> int | None:
        """Tokens of one text that the engine takes in whole, where the description gives it."""
        model = self.host.model_of(self.instance)
        if isinstance(model, OllamaModel):
            # Ollama 0.32: without num_batch a text is cut at 2048 tokens whatever num_ctx is.
            return min(model.parameters.get("num_ctx", 2048), model.parameters.get("num_batch", 2048))
        length = self.instance.arguments.get("max-model-len")
        return length if isinstance(length, int) else None


@dataclass(frozen=True)
class Entrance:
    """A gateway as requests reach it."""

    host: Host
    gateway: Gateway

    @property
    def url(self) -> str:
        return gateway_url(self.host, self.gateway)

    @property
    def connect(self) -> str:
        """``address:port`` of this very gateway, where its URL has a name that may lead elsewhere."""
        tls = self.gateway.tls
        return at(self.host.address, self.gateway.tls_port or 0) if tls and tls.domain else ""

    @property
    def key(self) -> Key | None:
        """The key in this machine's environment, where it is one of the gateway's."""
        value = os.environ.get(GATEWAY_KEY, "")
        return Key(GATEWAY_KEY, value) if hash_of(value) in {key.sha256 for key in self.gateway.keys} else None

    def members(self, fleet: Fleet, pool: Pool) -> list[Member]:
        """A pool's instances, as requests through this gateway reach them."""
        return [replace(member, gateway_key=self.key) for member in pool_members(fleet, pool)]


def base_url(address: str, port: int) -> str:
    return f"http://{at(address, port)}"


def gateway_url(host: Host, gateway: Gateway) -> str:
    """Where clients reach it: by HTTPS if it speaks that."""
    if gateway.tls is None or gateway.tls_port is None:
        return base_url(host.address, gateway.port)
    return f"https://{at(gateway.tls.domain or host.address, gateway.tls_port)}"


def members(fleet: Fleet) -> list[Member]:
    return [Member(host, instance) for host in fleet.hosts for _, instance in host.instances()]


def entrances(fleet: Fleet) -> Iterator[Entrance]:
    for host in fleet.hosts:
        for stack in host.stacks:
            if stack.gateway:
                yield Entrance(host, stack.gateway)


def pool_members(fleet: Fleet, pool: Pool) -> list[Member]:
    return [Member(host, instance) for host, instance in fleet.members(pool.model, pool.hosts)]


def kind_of(fleet: Fleet, instance: Instance) -> Kind:
    """What an instance does: as its pool says; without a pool, as its engine's arguments say."""
    for entrance in entrances(fleet):
        for pool in entrance.gateway.pools:
            if pool.model == instance.model:
                return pool.kind
    return engine_of(instance.engine).kind(instance.arguments)

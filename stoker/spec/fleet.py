"""The whole fleet: hosts with their settings and stacks, validated."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from stoker.engine.registry import engine_of
from stoker.spec.base import Spec
from stoker.spec.instance import Instance
from stoker.spec.own_images import FETCH
from stoker.spec.profile import Profile
from stoker.spec.settings import AnyModel, HubModel, Settings
from stoker.spec.stack import GpuHardware, Stack

#: The inventory's name for the machine where Stoker runs: pyinfra's connector without SSH.
LOCAL = "@local"


class HostDescription(Spec):
    """What group_data says of one host, beside the site's settings."""

    #: None: it has no cards, or none of Stoker's concern: it runs gateways, or engines on its processors.
    gpus: GpuHardware | None = None
    stacks: tuple[Stack, ...]
    #: Where gateways and clients reach this one; its inventory name when not given, which for `LOCAL` is none.
    address: str | None = None


def at(address: str, port: int) -> str:
    """``address:port``, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True)
class Host:
    """One host of the fleet, validated."""

    name: str
    address: str
    gpus: GpuHardware | None
    stacks: tuple[Stack, ...]
    settings: Settings
    #: Images of the whole host that can fetch models, where this is a part of it (`only`).
    fetching: tuple[str, ...] = ()

    def instances(self) -> Iterator[tuple[Stack, Instance]]:
        for stack in self.stacks:
            for instance in stack.instances:
                yield stack, instance

    def only(self, names: Collection[str]) -> Host:
        """This host with the named instances alone, and no gateways: for what they need. Empty: all of it."""
        if not names:
            return self
        stacks = (
            stack.model_copy(update={"instances": chosen, "gateway": None, "web_ui": None})
            for stack in self.stacks
            if (chosen := tuple(instance for instance in stack.instances if instance.name in names))
        )
        return replace(self, stacks=tuple(stacks), fetching=self._fetching())

    def model_of(self, instance: Instance) -> AnyModel:
        return self.settings.models[instance.model]

    def image_of(self, instance: Instance) -> str:
        return self.settings.image(instance.image or self.settings.versions.of(instance.engine))

    @property
    def gateway_image(self) -> str:
        return self.settings.image(self.settings.versions.nginx)

    @property
    def web_ui_image(self) -> str:
        """Raises ValueError where the description has none, which its checks refuse."""
        if self.settings.versions.open_webui is None:
            raise ValueError("`versions` has no open_webui")
        return self.settings.image(self.settings.versions.open_webui)

    def profile_of(self, instance: Instance) -> Profile:
        profiles = engine_of(instance.engine).profiles
        return profiles[self.settings.profiles.get(instance.engine, next(iter(profiles)))]

    def fetching_image(self, instance: Instance) -> str:
        """An image that can fetch model files: the instance's own, another one of the host's, else one that is made for it."""
        able, own = self._fetching(), self.image_of(instance)
        return own if own in able else next(iter(able), FETCH)

    def _fetching(self) -> tuple[str, ...]:
        own = (self.image_of(one) for _, one in self.instances() if engine_of(one.engine).fetches_models)
        return self.fetching or tuple(own)

    def images(self) -> list[str]:
        """Every image that this host needs, each once."""
        others = [self.gateway_image] if any(stack.gateway for stack in self.stacks) else []
        downloads = [one for _, one in self.instances() if isinstance(self.settings.models.get(one.model), HubModel)]
        others += [self.fetching_image(one) for one in downloads]
        others += [self.web_ui_image] if any(stack.web_ui for stack in self.stacks) else []
        return list(dict.fromkeys([self.image_of(instance) for _, instance in self.instances()] + others))


@dataclass(frozen=True)
class Fleet:
    """All hosts of the inventory, in its order."""

    hosts: tuple[Host, ...]

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def hosts_that_ask(self, host: Host) -> list[Host]:
        """The other hosts with a gateway that has an instance of ``host`` in one of its pools."""
        return [
            other
            for other in self.hosts
            if other.name != host.name
            and any(
                member.name == host.name
                for stack in other.stacks
                if stack.gateway
                for pool in stack.gateway.pools
                for member, _ in self.members(pool.model, pool.hosts)
            )
        ]

    def members(self, model: str, only_hosts: Sequence[str] | None = None) -> list[tuple[Host, Instance]]:
        """Every instance in the fleet that serves a model, in the inventory's order."""
        return [
            (host, instance)
            for host in self.hosts
            if only_hosts is None or host.name in only_hosts
            for _, instance in host.instances()
            if instance.model == model
        ]

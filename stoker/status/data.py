"""What is known of a fleet at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stoker.spec.gpu_name import GpuName

#: ready: this very start has answered a real request, and the engine is healthy now. unproven: healthy, no such answer yet.
#: silent: it runs and does not answer; mostly it is loading. down: it does not run. stale: a gateway with an older configuration.
#: unknown: its host could not be asked.
Health = Literal["ready", "unproven", "silent", "down", "stale", "unknown"]

#: in: the gateway gives it requests. draining: taken out, and requests still run there. out: taken out, nothing runs there.
#: down: the gateway's own health check says so. proving: it was down, and has to answer the gateway first.
Place = Literal["in", "draining", "out", "down", "proving"]


@dataclass(frozen=True)
class GatewayView:
    """One gateway's view of one instance in one pool."""

    gateway: str
    pool: str
    health: str  #: up, down, proving or unknown
    drained: bool
    in_flight: int

    @property
    def place(self) -> Place:
        if self.drained:
            return "draining" if self.in_flight else "out"
        return "down" if self.health == "down" else "proving" if self.health == "proving" else "in"


@dataclass(frozen=True)
class Load:
    """What an engine says of its work. Tokens per second are the mean of the last ``seconds``; None where that is not known."""

    running: int
    waiting: int
    kv_cache: float | None  #: part in use, 0 to 1
    prompt_tokens_per_second: float | None = None
    generated_tokens_per_second: float | None = None
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        if self.prompt_tokens_per_second is None or self.generated_tokens_per_second is None:
            return None
        return self.prompt_tokens_per_second + self.generated_tokens_per_second


@dataclass(frozen=True)
class Card:
    """One card with everything on it. MiB."""

    index: int
    uuid: str
    used_mib: int | None
    total_mib: int


@dataclass(frozen=True)
class ContainerStatus:
    """A container. ``since`` is Docker's time of its last start or end."""

    state: str = "absent"
    since: str = ""
    seconds: float | None = None  #: since then, by the host's clock
    restarts: int = 0
    exit_code: int | None = None  #: of one that does not run


@dataclass(frozen=True)
class InstanceStatus:
    """One instance. Memory in MiB, summed over its cards; None: it uses no card, or it is not known."""

    name: str
    engine: str
    gpus: tuple[GpuName, ...]
    url: str
    model: str
    image: str
    health: Health
    container: ContainerStatus
    phase: str = ""  #: how far a loading one is
    used_mib: int | None = None  #: by its own processes
    predicted_mib: int | None = None
    cards: tuple[Card, ...] = ()
    load: Load | None = None
    gateways: tuple[GatewayView, ...] = ()
    drift: str = ""  #: why a deploy would touch its container
    cause: str = ""  #: why it does not run
    remedy: str = ""


@dataclass(frozen=True)
class GatewayStatus:
    """One gateway and the models that it offers. ``views``: what it says of its members, by their names there."""

    name: str
    url: str
    models: tuple[str, ...]
    image: str
    health: Health
    container: ContainerStatus
    drift: str = ""
    views: tuple[tuple[str, GatewayView], ...] = ()


@dataclass(frozen=True)
class HostStatus:
    """One host. ``error`` says why nothing is known about it."""

    host: str
    error: str = ""
    system: str = ""
    driver: str = ""
    docker: str = ""
    #: What of it is simulated, in a sentence; empty on a real host.
    simulated: str = ""
    #: What a deploy would do. None: it was not asked, because nothing is known or a deploy would be refused.
    drift: tuple[str, ...] | None = None
    #: Why a deploy would be refused.
    refused: str = ""
    cards: tuple[Card, ...] = ()
    instances: list[InstanceStatus] = field(default_factory=list)
    gateways: list[GatewayStatus] = field(default_factory=list)

    @property
    def entries(self) -> list[InstanceStatus | GatewayStatus]:
        return [*self.instances, *self.gateways]

    @property
    def ready(self) -> bool:
        return not self.error and all(entry.health == "ready" for entry in self.entries)

"""A gateway: the nginx in front of a stack, and the pools of instances that it balances over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from stoker.spec.base import ContainerName, FileName, ModelName, Network, Port, ServiceName, Spec
from stoker.spec.external import External
from stoker.spec.gateway_access import ClientLimits, Key, key_problems, outside
from stoker.spec.tls import ACME_PORT, Tls

#: What a pool's model does. It decides which paths choose the pool (docs/gateway.md has the table).
Kind = Literal["chat", "embeddings"]

#: First parts of paths that the gateway itself serves.
RESERVED_PREFIXES = frozenset({"/v1", "/api", "/admin", "/health", "/ready", "/stoker"})

#: Names of the gateway's own scripts, which lie beside its configuration.
SCRIPTS = ("router.js", "members.js", "health.js", "metrics.js")
#: The script that knows the keys, only where there are any.
KEYS_SCRIPT = "keys.js"
#: The script that judges what services elsewhere answer, only where there are any.
SERVICE_SCRIPT = "service.js"

PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Prefix = Annotated[str, StringConstraints(pattern=r"^/[a-z0-9][a-z0-9_-]{0,31}$")]


class Pool(Spec):
    """All instances of one model, balanced over as one; or a service elsewhere."""

    name: PoolName
    #: The name under which the instances serve the model; requests name it in the body's ``model``.
    model: ModelName
    kind: Kind
    #: With a prefix, ``/prefix/v1/...`` goes to this pool whatever the other pools are.
    prefix: Prefix | None = None
    #: The pool that requests without a model go to; one for each kind.
    default: bool = False
    #: Only instances on these hosts; all hosts of the inventory when not given.
    hosts: tuple[str, ...] | None = Field(default=None, min_length=1)
    #: ``prefix``: the same conversation goes to the member that has its beginning in the cache already, unless that one has much
    #: more to do than the others. For chat pools.
    affinity: Literal["prefix"] | None = None
    #: Not instances of the fleet, but a service elsewhere.
    external: External | None = None

    @field_validator("hosts", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("prefix")
    @classmethod
    def _free(cls, prefix: str | None) -> str | None:
        if prefix in RESERVED_PREFIXES:
            raise ValueError(f"{prefix} belongs to the gateway itself; choose another, for instance the model's family")
        return prefix

    @model_validator(mode="after")
    def _conversations(self) -> Pool:
        if self.affinity and self.kind != "chat":
            raise ValueError(f"affinity is for conversations, and the pool {self.name} has none; remove it")
        return self

    @model_validator(mode="after")
    def _one_service(self) -> Pool:
        if self.external is None:
            return self
        for field in ("hosts", "affinity"):
            if getattr(self, field):
                raise ValueError(f"{field} is for pools of instances, and the pool {self.name} is external; remove it")
        if self.external.dimensions and self.kind != "embeddings":
            raise ValueError(f"dimensions are of embeddings, and the pool {self.name} has none; remove it")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Under which clients may ask for it, as far as the pool itself says."""
        return (self.model, *(self.external.aliases if self.external else ()))


class Limits(Spec):
    """Times in seconds, sizes in MiB. The defaults serve long answers and cut off dead hosts."""

    #: A dead host must not cost a client a minute; a LAN's hosts answer in milliseconds.
    connect_seconds: int = Field(default=2, ge=1, le=60)
    #: Longest silence of an engine within one answer. 600 s is what the OpenAI client waits.
    read_seconds: int = Field(default=600, ge=1, le=86400)
    send_seconds: int = Field(default=600, ge=1, le=86400)
    #: JSON bodies that the gateway must read to choose a pool; reading costs about 3 ms a MiB.
    parsed_body_mib: int = Field(default=32, ge=1, le=64)
    #: Bodies whose pool the path alone decides.
    body_mib: int = Field(default=100, ge=1, le=4096)

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        if self.body_mib < self.parsed_body_mib:
            raise ValueError(
                f"body_mib {self.body_mib} is smaller than parsed_body_mib {self.parsed_body_mib}; "
                "raise body_mib, or lower parsed_body_mib"
            )
        return self


class Gateway(Spec):
    """One nginx container: where it listens and what it routes."""

    container: ContainerName
    service: ServiceName = "nginx"
    #: Published on the host, and the port that nginx listens on inside.
    port: Port
    #: Name of the nginx configuration in the project's gateway directory.
    config_file: FileName
    pools: tuple[Pool, ...] = Field(min_length=1)
    limits: Limits = Limits()
    #: Where clients come from; any other address is refused. A fleet's gateway must say it (spec/checks_fleet.py).
    allowed_networks: tuple[Network, ...] = ()
    #: With keys, every request needs one of them.
    keys: tuple[Key, ...] = ()
    #: From here, and with a key that is an `admin`, Ollama's own management is offered as well; otherwise to nobody.
    admin_networks: tuple[Network, ...] = ()
    client_limits: ClientLimits = ClientLimits()
    tls: Tls | None = None
    #: Shows what the gateway counts, for a Prometheus in one of the allowed networks; without a key.
    metrics_port: Port | None = None

    @field_validator("pools", "allowed_networks", "admin_networks", "keys", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("config_file")
    @classmethod
    def _not_a_script(cls, name: str) -> str:
        if name in (*SCRIPTS, KEYS_SCRIPT, SERVICE_SCRIPT):
            raise ValueError(f"{name} is the name of the gateway's own script; choose another, for instance nginx.conf")
        return name

    @field_validator("keys")
    @classmethod
    def _different(cls, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        problems = key_problems(keys)
        if problems:
            raise ValueError("; ".join(problems))
        return keys

    @property
    def externals(self) -> list[tuple[Pool, External]]:
        """The pools that services elsewhere serve."""
        return [(pool, pool.external) for pool in self.pools if pool.external]

    @property
    def has_admins(self) -> bool:
        return bool(self.admin_networks) or any(key.admin for key in self.keys)

    @model_validator(mode="after")
    def _administrators_are_clients(self) -> Gateway:
        strangers = outside(self.admin_networks, self.allowed_networks)
        if strangers:
            raise ValueError(
                f"admin_networks has {', '.join(strangers)}, which is in none of allowed_networks, so nobody there gets in; "
                "add it there, or remove it here"
            )
        return self

    @property
    def plain_port(self) -> int | None:
        """Where clients may speak HTTP without TLS."""
        return self.port if self.tls is None or self.tls.port else None

    @property
    def tls_port(self) -> int | None:
        return (self.tls.port or self.port) if self.tls else None

    @property
    def health_url(self) -> str:
        """For the host itself."""
        return f"{'http' if self.plain_port else 'https'}://127.0.0.1:{self.port}/health"

    @property
    def ports(self) -> list[int]:
        """Every port that is published on the host."""
        acme = ACME_PORT if self.tls and self.tls.acme else None
        return [port for port in (self.plain_port, self.tls_port, self.metrics_port, acme) if port]

    @model_validator(mode="after")
    def _different_ports(self) -> Gateway:
        if self.tls and self.tls.port == self.port:
            raise ValueError(
                f"port {self.port} is the plain one; choose another for tls, for instance 11443, or remove it from tls: "
                f"{self.port} then speaks HTTPS"
            )
        if self.metrics_port and self.metrics_port in (self.port, self.tls_port):
            raise ValueError(
                f"port {self.metrics_port} is the clients'; choose another metrics_port, for instance 9436"
            )
        if len(set(self.ports)) < len(self.ports):
            raise ValueError(f"port {ACME_PORT} is where the authority of acme asks; choose another for the gateway")
        return self

    @field_validator("pools")
    @classmethod
    def _consistent(cls, pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
        problems = [*_clashes(pools), *_default_problems(pools)]
        if problems:
            raise ValueError("; ".join(problems))
        return pools


def without_latest(model: str) -> str:
    """Ollama treats ``bge-m3`` and ``bge-m3:latest`` as the same model."""
    return model.removesuffix(":latest")


def _clashes(pools: Iterable[Pool]) -> Iterator[str]:
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pool in pools:
        users["name", pool.name].append(pool.name)
        for name in pool.names:
            users["model", without_latest(name)].append(pool.name)
        if pool.prefix:
            users["prefix", pool.prefix].append(pool.name)
    for (field, value), names in users.items():
        if len(names) > 1:
            yield f"{len(names)} pools ({', '.join(names)}) have the {field} {value!r}; give each pool its own {field}"


def _default_problems(pools: Iterable[Pool]) -> Iterator[str]:
    kinds: dict[Kind, list[Pool]] = defaultdict(list)
    for pool in pools:
        kinds[pool.kind].append(pool)
    for kind, members in kinds.items():
        defaults = [pool.name for pool in members if pool.default]
        if not defaults:
            yield (
                f"no {kind} pool is the default, so a request without a model has nowhere to go; "
                f'add "default": True to one of {", ".join(pool.name for pool in members)}'
            )
        elif len(defaults) > 1:
            yield f"{len(defaults)} {kind} pools ({', '.join(defaults)}) are the default; leave it to one of them"

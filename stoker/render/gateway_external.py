"""What the templates need to know of the services elsewhere that serve pools.

A request for one goes through nginx twice: from the client's server block to a location of the inner one, which alone has the key. Only
there is a service's answer seen before it is decided whether the client gets it; nginx by itself would lose the body of one that it holds back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from stoker.render.gateway_routes import EXTERNAL, Backend, Member, service_targets
from stoker.spec.external import External
from stoker.spec.gateway import Gateway, Pool

#: Where the container sees the keys of the services: one file a pool, a line of nginx's configuration each.
KEYS_DIRECTORY = "/etc/nginx/stoker-keys"
#: Where the container sees whom the host trusts, and that directory on the host (Debian's ca-certificates).
TRUST_DIRECTORY = "/etc/nginx/stoker-trust"
_HOST_TRUST = "/etc/ssl/certs"
HOST_TRUST_FILE = f"{_HOST_TRUST}/ca-certificates.crt"

#: All waiting for a service together, from the request's first try on. Clients that see nothing for longer try again themselves.
RETRY_SECONDS = 30

#: The outer of the two waits so much longer, so that the inner one says what happened.
SERVICE_SLACK_SECONDS = 5


@dataclass(frozen=True)
class Path:
    """One of our paths, and the service's for it."""

    target: str
    path: str


@dataclass(frozen=True)
class Service:
    """One service elsewhere, as the templates need it. ``number`` is the member's."""

    number: int
    name: str
    pool: str
    url: str
    address: str  #: ``host:port``
    host: str
    authority: str
    secure: bool
    has_name: bool
    key_file: str  #: in KEYS_DIRECTORY; empty: it needs none
    retries: int
    paths: tuple[Path, ...]


class _Numbered(Protocol):
    """A member as the templates have it."""

    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def pool(self) -> str: ...


def services(members: Iterable[_Numbered], pools: Mapping[str, Pool]) -> list[Service]:
    found = []
    for member in members:
        pool = pools[member.pool]
        if pool.external:
            found.append(_service(member, pool, pool.external))
    return found


def _service(member: _Numbered, pool: Pool, external: External) -> Service:
    return Service(
        number=member.number,
        name=member.name,
        pool=pool.name,
        url=external.url,
        address=external.address,
        host=external.host,
        authority=external.authority,
        secure=external.secure,
        has_name=external.has_name,
        key_file=key_file(pool) if external.key else "",
        retries=external.retries,
        paths=tuple(Path(target, external.path(target)) for target in service_targets(pool.kind)),
    )


def service_name(pool: Pool, external: External) -> str:
    """How a gateway calls the service as a member."""
    return f"{pool.name}@{external.host}"


def backend(pool: Pool, external: External) -> Backend:
    """The service as the pool's one member."""
    return Backend(pool, EXTERNAL, (Member(service_name(pool, external), external.address),), external.aliases)


def key_file(pool: Pool) -> str:
    return f"{pool.name}.conf"


def key_line(secret: str) -> str:
    """What stands in a key's file. The secret must be a bearer token (stoker/spec/external.py)."""
    return f'proxy_set_header Authorization "Bearer {secret}";\n'


def volumes(gateway: Gateway, host_keys: str) -> list[str]:
    """What the container has to see. ``host_keys``: this gateway's directory of keys on the host."""
    external = [one for _, one in gateway.externals]
    keys = [f"{host_keys}:{KEYS_DIRECTORY}:ro"] if any(one.key for one in external) else []
    return keys + ([f"{_HOST_TRUST}:{TRUST_DIRECTORY}:ro"] if any(one.secure for one in external) else [])

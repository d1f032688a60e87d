"""Who may use a gateway, and how much: networks, keys, limits for each client."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from stoker.spec.base import Spec, form

#: Stands in the log, never beside the key itself.
KeyName = Annotated[
    str,
    form(r"^[a-z0-9][a-z0-9_-]{0,31}$", "at most 32 signs: lower-case letters, digits, and _ - after the first sign"),
]

#: Words of nginx's own in a map of names (ngx_http_map_module).
RESERVED_NAMES = frozenset({"default", "hostnames", "include", "volatile"})

#: SHA-256 of nothing: a client that sends an empty key must not be let in by a slip of the shell.
_EMPTY = hashlib.sha256().hexdigest()


class ClientLimits(Spec):
    """What one client may ask for: a key, or an address where no keys are used. None: as much as it likes."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    #: So many requests may come at once before the rate counts.
    burst: int = Field(default=20, ge=1, le=100_000)
    #: Requests that run at the same time. A stream counts until its last byte.
    concurrent: int | None = Field(default=None, ge=1, le=65_535)

    @model_validator(mode="after")
    def _burst_of_something(self) -> ClientLimits:
        if "burst" in self.model_fields_set and self.requests_per_minute is None:
            raise ValueError("burst without requests_per_minute limits nothing; add requests_per_minute, or remove it")
        return self


class Key(Spec):
    """One client's key. What stands here is its hash, from which the key cannot be found again."""

    name: KeyName
    #: SHA-256 of the key, hexadecimal. `stoker key new NAME` makes a key and prints this line.
    sha256: Annotated[str, form(r"^[0-9a-f]{64}$", "64 digits 0-9 a-f; `stoker key new NAME` prints them")]
    #: Instead of the gateway's `client_limits`.
    limits: ClientLimits | None = None
    #: Opens Ollama's own management too.
    admin: bool = False

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value in RESERVED_NAMES:
            raise ValueError(f"{value} is a word of nginx's own; give the key another name")
        return value

    @field_validator("sha256")
    @classmethod
    def _of_something(cls, value: str) -> str:
        if value == _EMPTY:
            raise ValueError("this is the hash of an empty key; `stoker key new NAME` makes one")
        return value


def outside(networks: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """Those that lie in no single one of the allowed networks."""
    wide = [ipaddress.ip_network(network) for network in allowed]
    return [network for network in networks if not any(_within(ipaddress.ip_network(network), one) for one in wide)]


def _within(network: IPv4Network | IPv6Network, wide: IPv4Network | IPv6Network) -> bool:
    first, last = int(network.network_address), int(network.broadcast_address)
    return (
        network.version == wide.version and int(wide.network_address) <= first and last <= int(wide.broadcast_address)
    )


def key_problems(keys: Iterable[Key]) -> list[str]:
    """Keys that cannot be told from each other."""
    keys = list(keys)
    found = [
        f"{count} keys have the name {name}" for name, count in Counter(key.name for key in keys).items() if count > 1
    ]
    hashes = Counter(key.sha256 for key in keys)
    found += [
        f"{' and '.join(key.name for key in keys if key.sha256 == value)} are the same key"
        for value, count in hashes.items()
        if count > 1
    ]
    return found

"""What a gateway that nobody described in detail needs: pools, and where its clients are. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container, Iterable

from stoker.spec.gateway import RESERVED_PREFIXES, Kind, Pool

#: Where clients are when the host's address does not tell: the private networks (RFC 1918).
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")


def networks_of(address: str) -> tuple[str, ...]:
    """The host's own network: of an IPv4 address the 256 around it, of an IPv6 address its /64."""
    try:
        host = ipaddress.ip_address(address)
    except ValueError:
        return PRIVATE
    return (str(ipaddress.ip_network(f"{host}/{24 if host.version == 4 else 64}", strict=False)),)


def word(model: str) -> str:
    """``llama3.1-8b`` -> ``llama``, ``BAAI/bge-m3`` -> ``bge``: the model's family, for names."""
    return next(iter(re.findall(r"[a-z]+", model.rpartition("/")[2].lower())), "model")


def pools_of(served: Iterable[tuple[str, Kind]]) -> tuple[Pool, ...]:
    """A pool for each model, reached under its family's name; of each kind the first is the default."""
    pools: list[Pool] = []
    for model, kind in served:
        name = "embed" if kind == "embeddings" else word(model)[:28]
        name = unique(name, {pool.name for pool in pools})
        default = all(pool.kind != kind for pool in pools)
        pools.append(Pool(name=name, model=model, kind=kind, prefix=prefix_of(name), default=default))
    return tuple(pools)


def prefix_of(name: str) -> str | None:
    """A pool's name as a path; None where the gateway itself has that one."""
    return None if f"/{name}" in RESERVED_PREFIXES else f"/{name}"


def unique(name: str, taken: Container[str]) -> str:
    """The name, with a number where another has it."""
    return name if name not in taken else next(f"{name}_{n}" for n in range(2, 1000) if f"{name}_{n}" not in taken)

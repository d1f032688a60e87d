"""What the templates need to know of a gateway's protection, and its errors."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable
from dataclasses import dataclass

from stoker.spec.gateway import Gateway
from stoker.spec.gateway_access import ClientLimits
from stoker.spec.tls import Tls

#: Where the container sees the directory of the certificate.
TLS_DIRECTORY = "/etc/nginx/stoker-tls"

#: Networks that nginx's configuration has anyway.
_LOOPBACK = ("127.0.0.1/32", "::1/128")


@dataclass(frozen=True)
class LimitClass:
    """Clients that share their limits: one key with limits of its own, or all others. Each client is counted for itself."""

    number: int
    key: str  #: empty: everybody who has no limits of their own
    limits: ClientLimits

    @property
    def limited(self) -> bool:
        return bool(self.limits.requests_per_minute or self.limits.concurrent)

    @property
    def retry_after(self) -> int:
        """Seconds. When a running request ends is not known; one second is the least that can be said."""
        return max(1, math.ceil(60 / (self.limits.requests_per_minute or 60)))


def limit_classes(gateway: Gateway) -> list[LimitClass]:
    own = [(key.name, key.limits) for key in gateway.keys if key.limits]
    return [
        LimitClass(number, name, limits) for number, (name, limits) in enumerate([("", gateway.client_limits), *own])
    ]


def networks(gateway: Gateway) -> list[str]:
    """Who may come in, without loopback, which stands in the template."""
    return [network for network in distinct(gateway.allowed_networks) if network not in _LOOPBACK]


def distinct(written: Iterable[str]) -> list[str]:
    """Each network once, written as nginx takes it."""
    return list(dict.fromkeys(str(ipaddress.ip_network(network)) for network in written))


def tls_volume(tls: Tls) -> str:
    """How the container comes to see certificate and key."""
    return f"{tls.directory}:{TLS_DIRECTORY}:ro"


def listens_on_ipv6(gateway: Gateway) -> bool:
    """Only where somebody may come by IPv6: nginx does not start on a machine that has none."""
    return any(":" in network for network in gateway.allowed_networks)

"""The rules that close the ports of a host's engines, from the description."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from stoker.render.environment import TEMPLATES, render
from stoker.spec.fleet import Fleet, Host


def ports(host: Host) -> list[int]:
    return sorted(instance.port for _, instance in host.instances())


def rules(fleet: Fleet, host: Host) -> str:
    """The file for ``nft -f``. The description's checks have seen that every gateway's address is an IP address."""
    addresses = [other.address for other in fleet.hosts_that_ask(host)]
    networks = [ipaddress.ip_network(text) for text in (*addresses, *host.settings.engine_networks)]
    # Docker's own packages are 28.2 or newer here (CDI); 28.0 closed direct routes to containers (moby/moby#49325).
    routed = host.settings.docker.source == "distribution"
    return render(
        "firewall/firewall.nft.j2",
        ports=ports(host),
        ipv4=_texts(network for network in networks if isinstance(network, ipaddress.IPv4Network)),
        ipv6=_texts(network for network in networks if isinstance(network, ipaddress.IPv6Network)),
        container_ports=sorted({instance.container_port for _, instance in host.instances()}) if routed else [],
    )


def unit() -> str:
    return (TEMPLATES / "firewall/stoker-firewall.service").read_text(encoding="utf-8")


def _texts(networks: Iterable[ipaddress.IPv4Network] | Iterable[ipaddress.IPv6Network]) -> list[str]:
    """Sorted, without overlaps: nft refuses a set of networks that hold each other."""
    return [str(network) for network in ipaddress.collapse_addresses(networks)]  # type: ignore[type-var]

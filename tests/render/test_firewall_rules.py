"""The rules in the real kernel: a host with published ports as Docker makes them, and who reaches them from where. Needs root and nft."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.fleet import Data
from support.namespaces import Namespace, cable, namespace
from support.states import fleet_and_host

from stoker.facts.probe import Questions, script
from stoker.facts.state import HostState, parse
from stoker.render.firewall import rules

GATEWAY, STRANGER, MONITOR = "192.168.31.65", "192.168.31.77", "10.1.2.3"
GATEWAY6, STRANGER6, MONITOR6 = "fd00:31::65", "fd00:31::77", "fd00:99::3"
HOST, HOST6, CONTAINER = "192.168.31.10", "fd00:31::10", "172.18.0.2"
#: Published by address translation, by a proxy that listens on the host, and not an engine's.
PUBLISHED, PROXIED, OTHER = 11401, 11402, 11434

#: What dockerd 28 writes for a published port, without what it writes for Docker's own use.
_DOCKER = f"""
table ip nat {{
    chain PREROUTING {{ type nat hook prerouting priority dstnat; fib daddr type local tcp dport {PUBLISHED} dnat to {CONTAINER}:8000; }}
    chain POSTROUTING {{ type nat hook postrouting priority srcnat; ip saddr 172.18.0.0/16 oifname != "br-*" masquerade; }}
}}
"""


@dataclass(frozen=True)
class Site:
    """A host with a container on a bridge of Docker's, and the machines on its network, all of them one namespace."""

    host: Namespace
    container: Namespace
    network: Namespace
    stack: ExitStack

    def load(self, **settings: object) -> None:
        """Load the rules that these settings make."""
        self.host.sh(f"nft -f - <<'END'\n{text(**settings)}\nEND")


def text(**settings: object) -> str:
    def change(data: Data) -> None:
        data["all"] |= {"firewall": "engines", **settings}

    return rules(*fleet_and_host("llm", change))


@pytest.fixture
def site() -> Iterator[Site]:
    assert shutil.which("nft"), "apt-get install nftables"
    with ExitStack() as stack:
        host, container, network = (namespace(stack) for _ in range(3))
        cable(host, "lan", network, "lan")
        cable(host, "veth0", container, "eth0")
        host.sh(
            f"ip addr add {HOST}/24 dev lan; ip addr add {HOST6}/64 dev lan; "
            "ip link add br-0123456789ab type bridge; ip addr add 172.18.0.1/16 dev br-0123456789ab; "
            "ip link set veth0 master br-0123456789ab; ip link set br-0123456789ab up; "
            "ip route add default via 192.168.31.1; ip -6 route add default via fd00:31::1; "
            f"echo 1 >/proc/sys/net/ipv4/ip_forward; nft -f - <<'END'\n{_DOCKER}\nEND"
        )
        container.sh(f"ip addr add {CONTAINER}/16 dev eth0; ip route add default via 172.18.0.1")
        for address in (GATEWAY, STRANGER, "192.168.31.1"):
            network.sh(f"ip addr add {address}/24 dev lan")
        for address in (GATEWAY6, STRANGER6, "fd00:31::1"):
            network.sh(f"ip addr add {address}/64 dev lan")
        network.sh(
            f"ip addr add {MONITOR}/32 dev lan; ip addr add {MONITOR6}/128 dev lan; ip route add 172.18.0.0/16 via {HOST}"
        )
        container.listen(stack, 8000)
        host.listen(stack, PROXIED, OTHER, 22)
        yield Site(host, container, network, stack)


def reached(site: Site, sources: tuple[str, ...], address: str, port: int) -> dict[str, str]:
    return {source: site.network.connect(address, port, source) for source in sources}


def test_without_the_rules_everyone_reaches_every_port(site: Site) -> None:
    for port in (PUBLISHED, PROXIED, OTHER, 22):
        assert reached(site, (GATEWAY, STRANGER, MONITOR), HOST, port) == dict.fromkeys(
            (GATEWAY, STRANGER, MONITOR), "open"
        )


@pytest.mark.parametrize("port", [PUBLISHED, PROXIED])
def test_an_engine_port_is_open_to_the_gateways_and_refused_to_others(site: Site, port: int) -> None:
    site.load()
    assert reached(site, (GATEWAY, STRANGER, MONITOR), HOST, port) == {
        GATEWAY: "open",
        STRANGER: "refused",
        MONITOR: "refused",
    }


def test_all_other_ports_stay_open_to_everyone(site: Site) -> None:
    site.load()
    assert reached(site, (GATEWAY, STRANGER), HOST, OTHER) == {GATEWAY: "open", STRANGER: "open"}
    assert reached(site, (GATEWAY, STRANGER), HOST, 22) == {GATEWAY: "open", STRANGER: "open"}


def test_named_networks_are_let_in_too(site: Site) -> None:
    site.load(engine_networks=["10.0.0.0/8", "10.1.0.0/16", "fd00:99::/64"])
    assert reached(site, (MONITOR, STRANGER), HOST, PUBLISHED) == {MONITOR: "open", STRANGER: "refused"}
    assert reached(site, (MONITOR6, STRANGER6), HOST6, PROXIED) == {MONITOR6: "open", STRANGER6: "refused"}


def test_over_ipv6_only_who_is_named_by_an_ipv6_address_is_let_in(site: Site) -> None:
    site.load(engine_networks=[GATEWAY6])
    assert reached(site, (GATEWAY6, STRANGER6), HOST6, PROXIED) == {GATEWAY6: "open", STRANGER6: "refused"}
    assert reached(site, (STRANGER6,), HOST6, 22) == {STRANGER6: "open"}


def test_a_link_local_address_is_no_way_around(site: Site) -> None:
    (line,) = site.host.sh("ip -6 -o addr show dev lan scope link").splitlines()
    link_local = f"{line.split()[3].partition('/')[0]}%lan"
    assert site.network.connect(link_local, PROXIED) == "open"
    site.load()
    assert site.network.connect(link_local, PROXIED) == "refused"
    assert site.network.connect(link_local, 22) == "open"


def test_packets_that_somebody_exempts_from_tracking_are_no_way_around(site: Site) -> None:
    site.load()
    site.host.sh(
        "nft add table inet exempt; nft add chain inet exempt everything '{ type filter hook prerouting priority raw; }'; "
        "nft add rule inet exempt everything notrack"
    )
    assert reached(site, (GATEWAY, STRANGER), HOST, PROXIED) == {GATEWAY: "open", STRANGER: "refused"}


def test_the_host_and_its_containers_reach_the_engines(site: Site) -> None:
    site.load()
    for address in ("127.0.0.1", "::1", HOST, HOST6):
        assert site.host.connect(address, PROXIED) == "open", address
    assert site.container.connect(HOST, PROXIED) == "open"


def test_what_the_host_and_its_containers_ask_elsewhere_is_answered(site: Site) -> None:
    """Also from a port of their own that has an engine's number, as the answer's destination."""
    site.load()
    site.network.listen(site.stack, 443, PUBLISHED)
    for number in (443, PUBLISHED):
        assert site.host.connect(STRANGER, number) == "open"
        assert site.container.connect(STRANGER, number) == "open"
    site.host.sh(f"echo '{PUBLISHED} {PUBLISHED}' >/proc/sys/net/ipv4/ip_local_port_range")
    assert site.host.connect(STRANGER, 443) == "open"


def test_what_passes_through_the_host_is_not_touched(site: Site) -> None:
    other = namespace(site.stack)
    cable(site.host, "lab", other, "eth0")
    site.host.sh("ip addr add 192.168.40.1/24 dev lab")
    other.sh("ip addr add 192.168.40.2/24 dev eth0; ip route add default via 192.168.40.1")
    site.network.sh(f"ip route add 192.168.40.0/24 via {HOST}")
    other.listen(site.stack, PUBLISHED)
    site.load()
    assert site.network.connect("192.168.40.2", PUBLISHED, STRANGER) == "open"


def test_a_direct_route_to_a_container_is_closed_where_docker_leaves_it_open(site: Site) -> None:
    site.load()
    assert (
        site.network.connect(CONTAINER, 8000, STRANGER) == "open"
    )  # here nobody plays Docker 28, which closes it itself
    site.load(docker={"source": "distribution"})
    assert site.network.connect(CONTAINER, 8000, STRANGER) == "refused"
    assert reached(site, (GATEWAY, STRANGER), HOST, PUBLISHED) == {GATEWAY: "open", STRANGER: "refused"}
    assert site.container.connect(HOST, PROXIED) == "open"


def test_loading_again_changes_nothing_and_asks_for_nothing_else(site: Site) -> None:
    site.load()
    before = site.host.sh("nft list ruleset")
    site.load()
    assert site.host.sh("nft list ruleset") == before
    assert "table ip nat" in before


def probed(site: Site, folder: Path) -> HostState:
    """What the probe finds on the host when ``folder`` is its /etc."""
    inside = f"mount --bind {folder} /etc && mount -t sysfs sysfs /sys && exec sh -s"
    done = subprocess.run(
        ["unshare", "-m", *site.host.argv("sh", "-c", inside)],
        input=script(Questions()),
        env={**os.environ, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return parse(done.stdout.splitlines())


def test_the_probe_sees_whether_the_table_is_what_the_file_says(site: Site, tmp_path: Path) -> None:
    (tmp_path / "stoker").mkdir()
    file = tmp_path / "stoker/firewall.nft"
    file.write_text(text(engine_networks=["10.0.0.0/8"]))
    assert probed(site, tmp_path).firewall == ""
    site.load(engine_networks=["10.0.0.0/8"])
    assert probed(site, tmp_path).firewall == "as written"
    assert probed(site, tmp_path).bridges == ("br-0123456789ab",)
    # What somebody opened by hand, what somebody flushed, and what the file no longer says.
    site.host.sh("nft insert rule inet stoker known accept")
    assert probed(site, tmp_path).firewall == "another"
    site.load(engine_networks=["10.0.0.0/8"])
    site.host.sh("nft flush chain inet stoker engines")
    assert probed(site, tmp_path).firewall == "another"
    site.load()
    assert probed(site, tmp_path).firewall == "another"
    site.host.sh("nft flush ruleset")
    assert probed(site, tmp_path).firewall == ""

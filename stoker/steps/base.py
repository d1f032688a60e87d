"""What every chapter after it needs from the distribution."""

from __future__ import annotations

from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps import acme
from stoker.steps.action import Action
from stoker.steps.packages import Package, install, missing

_ALWAYS = (Package("ca-certificates"), Package("curl"), Package("iproute2"), Package("iptables"))


def packages(host: Host) -> list[Package]:
    return [*_ALWAYS, *([] if host.settings.firewall == "off" else [Package("nftables")]), *acme.packages(host)]


def actions(host: Host, state: HostState) -> list[Action]:
    lacking = missing(state, packages(host))
    return [install(lacking)] if lacking else []

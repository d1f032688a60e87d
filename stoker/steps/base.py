"""What every chapter after it needs from the distribution."""

from __future__ import annotations

from stoker.facts.state import HostState
from stoker.steps.action import Action
from stoker.steps.packages import Package, install, missing

BASE = (Package("ca-certificates"), Package("curl"), Package("iproute2"), Package("iptables"))


def actions(state: HostState) -> list[Action]:
    lacking = missing(state, BASE)
    return [install(lacking)] if lacking else []

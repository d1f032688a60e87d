"""Closing the engine ports: whom the rules know, what the step does to which state, and what speaks against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.fleet import EMBEDDING, LLM, Data, default_data
from support.states import NOW, bare, converged, fleet_and_host, steps

from stoker.facts.paths import FIREWALL_RULES
from stoker.facts.state import HostState
from stoker.plan.finding import Finding
from stoker.plan.preflight import findings
from stoker.render.firewall import rules
from stoker.spec.build import RawHost, build_fleet
from stoker.spec.fleet import Fleet, Host
from stoker.spec.problems import SpecError
from stoker.steps.firewall import UNIT, UNIT_FILE
from stoker.steps.packages import Package


def closing(data: Data, **settings: Any) -> None:
    data["all"] |= {"firewall": "engines", **settings}


def closed(group: str = "llm", **settings: Any) -> tuple[Fleet, Host]:
    return fleet_and_host(group, lambda data: closing(data, **settings))


def done(fleet: Fleet, host: Host, state: HostState) -> list[str]:
    return [str(action) for action in steps(fleet, host, state).get("firewall", [])]


CLOSE = "close ports 11401, 11402, 11403, 11404, 11405 to all but this host, 192.168.31.65"


def test_the_gateways_of_other_hosts_are_known() -> None:
    assert "ip saddr { 192.168.31.65/32 } accept" in rules(*closed("llm"))
    assert "tcp dport { 11401, 11402, 11403, 11404, 11405 }" in rules(*closed("llm"))


def test_a_gateway_that_does_not_use_the_host_is_not_known() -> None:
    """The llm host's gateway has no pool of the embedding host's model."""
    text = rules(*closed("embedding"))
    assert "tcp dport { 11434, 11435 }" in text
    assert "saddr" not in text


def test_a_pool_of_some_hosts_counts_for_these_alone() -> None:
    def change(data: Data) -> None:
        closing(data)
        for pool in data["embedding"]["stacks"][0]["gateway"]["pools"][1:]:
            pool["hosts"] = ["192.168.31.65"]
        data["embedding"]["stacks"][0]["gateway"]["pools"][1:] = []

    assert "saddr" not in rules(*fleet_and_host("llm", change))


def test_networks_come_sorted_and_without_overlaps() -> None:
    text = rules(*closed(engine_networks=["192.168.31.0/24", "10.9.0.0/16", "10.0.0.0/8", "fd00:31::1"]))
    assert "ip saddr { 10.0.0.0/8, 192.168.31.0/24 } accept" in text
    assert "ip6 saddr { fd00:31::1/128 } accept" in text


def test_a_host_that_does_not_close_its_ports_needs_nothing_of_it() -> None:
    fleet, host = fleet_and_host("llm")
    assert "nftables" not in str(steps(fleet, host, bare(host))["base"])
    assert done(fleet, host, bare(host)) == []


def test_a_bare_host_gets_package_files_and_rules_before_its_containers() -> None:
    fleet, host = closed()
    found = steps(fleet, host, bare(host))
    assert "nftables" in str(found["base"][0])
    assert done(fleet, host, bare(host)) == [f"write {FIREWALL_RULES}", f"write {UNIT_FILE}", CLOSE]
    chapters = list(found)
    assert chapters.index("layout") < chapters.index("firewall") < chapters.index("files")


def test_a_converged_host_needs_nothing() -> None:
    fleet, host = closed()
    assert steps(fleet, host, converged(fleet, host)) == {}


Change = Callable[[HostState], HostState]


def without(path: str) -> Change:
    return lambda state: replace(state, files={name: file for name, file in state.files.items() if name != path})


def with_unit(words: str) -> Change:
    return lambda state: replace(state, units={**state.units, UNIT: words})


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda state: replace(state, firewall=""), [CLOSE]),
        (lambda state: replace(state, firewall="another"), [CLOSE]),
        (with_unit("inactive enabled"), [CLOSE]),
        (with_unit("active disabled"), [CLOSE]),
        (without(FIREWALL_RULES), [f"write {FIREWALL_RULES}", CLOSE]),
        (without(UNIT_FILE), [f"write {UNIT_FILE}", CLOSE]),
    ],
    ids=["flushed", "edited", "stopped", "not at boot", "no rules", "no unit"],
)
def test_what_is_not_so_any_more_is_mended(change: Change, wanted: list[str]) -> None:
    fleet, host = closed()
    assert done(fleet, host, change(converged(fleet, host))) == wanted


def test_another_network_changes_the_rules_alone() -> None:
    state = converged(*closed())
    fleet, host = closed(engine_networks=["10.0.0.0/8"])
    assert done(fleet, host, state) == [f"write {FIREWALL_RULES}", f"{CLOSE}, 10.0.0.0/8"]
    assert list(steps(fleet, host, state)) == ["firewall"]


@pytest.mark.parametrize(
    "left",
    [
        lambda state: state,
        lambda state: replace(state, files={}, units={}),
        lambda state: replace(state, firewall="", units={}),
        lambda state: replace(state, firewall="", files={}),
    ],
    ids=["all", "table", "files", "unit"],
)
def test_turned_off_it_leaves_nothing_behind(left: Change) -> None:
    state = left(converged(*closed()))
    fleet, host = fleet_and_host("llm")
    assert done(fleet, host, state) == ["open the engines' ports again"]


def test_the_package_stays_when_the_ports_are_opened_again() -> None:
    state = converged(*closed())
    fleet, host = fleet_and_host("llm")
    assert Package("nftables").is_in(state)
    assert list(steps(fleet, host, state)) == ["firewall"]


def problems(change: Callable[[Data], object], **host_data: Any) -> list[str]:
    data = default_data()
    change(data)
    try:
        build_fleet(
            [
                RawHost(LLM, {**data["all"], **data["llm"]}, lambda name: "group_data/llm.py"),
                RawHost(EMBEDDING, {**data["all"], **data["embedding"], **host_data}, lambda name: "inventory.py"),
            ]
        )
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_a_gateway_known_by_name_only_is_refused() -> None:
    assert problems(lambda data: None, address="gpu65.lan") == []
    assert problems(closing, address="fd00:31::65") == []
    (problem,) = problems(closing, address="gpu65.lan")
    assert "'gpu65.lan' is no IP address" in problem
    assert '("192.168.31.65", {"address":' in problem


def bridge_findings(host: Host, *bridges: str) -> list[Finding]:
    state = replace(bare(host), bridges=bridges)
    return [finding for finding in findings(host, state, NOW) if finding.anchor == "firewall-bridge"]


def test_an_interface_with_the_name_of_dockers_bridges_is_refused() -> None:
    _, host = closed()
    (finding,) = bridge_findings(host, "br-0123456789ab", "br-lan")
    assert finding.severity == "refuse"
    assert "br-lan" in finding.reason
    _, host = fleet_and_host("llm")
    assert bridge_findings(host, "br-lan") == []

"""Which checks a fleet needs: all of them follow from the description. Contacts nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stoker.smoke import checks_gateway, checks_host, checks_instance, checks_web_ui
from stoker.smoke.check import Check
from stoker.smoke.checks_host import HostWitness
from stoker.smoke.ssh import Login, Shell
from stoker.smoke.target import Member, entrances, members
from stoker.spec.fleet import Fleet, Host

#: For one request; a V100 writes the two dozen tokens of an answer in one or two seconds.
REQUEST_SECONDS = 20


class NothingToCheck(Exception):
    """The selection is empty, or names what the fleet does not have."""


@dataclass(frozen=True)
class Selection:
    """What to check; everything where nothing is named."""

    hosts: frozenset[str] = frozenset()
    #: Containers: instances and gateways.
    names: frozenset[str] = frozenset()

    def wants(self, host: Host, name: str) -> bool:
        return (not self.hosts or host.name in self.hosts) and (not self.names or name in self.names)


EVERYTHING = Selection()


@dataclass(frozen=True)
class Plan:
    """The checks in the order in which they are shown, and the witnesses to ask for more. Close it when done."""

    checks: tuple[Check, ...]
    witnesses: Mapping[str, HostWitness]

    def close(self) -> None:
        for witness in self.witnesses.values():
            if witness.shell is not None:
                witness.shell.close()


def plan(
    fleet: Fleet, logins: Mapping[str, Login], selection: Selection = EVERYTHING, seconds: int = REQUEST_SECONDS
) -> Plan:
    """Everything to check. ``logins``: how hosts are reached; ``seconds`` bounds each request.

    Raises NothingToCheck.
    """
    _known(selection.hosts, [host.name for host in fleet.hosts], "host")
    _known(selection.names, [name for host in fleet.hosts for name in _containers(host)], "instance or gateway")
    witnesses = {
        host.name: HostWitness(host, Shell(logins[host.name]) if host.name in logins else None) for host in fleet.hosts
    }
    checks: list[Check] = []
    for host in fleet.hosts:
        checks += _host_checks(fleet, witnesses[host.name], selection, seconds)
    if not checks:
        raise NothingToCheck("Nothing to check: the selection leaves no instance and no gateway.")
    return Plan(tuple(checks), witnesses)


def _host_checks(fleet: Fleet, witness: HostWitness, selection: Selection, seconds: int) -> list[Check]:
    host = witness.host
    wanted = [name for name in _containers(host) if selection.wants(host, name)]
    if not wanted:
        return []
    checks = [checks_host.access_check(witness, wanted)]
    checks += checks_host.memory_checks(
        witness, [instance for _, instance in host.instances() if instance.name in wanted]
    )
    for member in members(fleet):
        if member.host is host and member.instance.name in wanted:
            checks += _instance_checks(fleet, member, witness, seconds)
    for stack in host.stacks:
        if stack.web_ui and stack.web_ui.container in wanted:
            checks.append(checks_host.web_ui_check(witness, stack.web_ui))
            checks.append(checks_web_ui.check(host, stack.web_ui, seconds))
    for entrance in entrances(fleet):
        if entrance.host is host and entrance.gateway.container in wanted:
            checks.append(checks_host.gateway_check(witness, entrance.gateway))
            checks += checks_gateway.checks(fleet, entrance, witness, seconds)
    return checks


def _instance_checks(fleet: Fleet, member: Member, witness: HostWitness, seconds: int) -> list[Check]:
    return [
        *checks_host.instance_checks(witness, member.instance),
        *checks_instance.checks(fleet, member, witness, seconds),
    ]


def _containers(host: Host) -> list[str]:
    """The engines first."""
    instances = [instance.name for _, instance in host.instances()]
    return instances + [name for stack in host.stacks for name in stack.containers if name not in instances]


def _known(given: Iterable[str], known: list[str], what: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise NothingToCheck(f"The inventory has no {what} {', '.join(unknown)}. It has: {', '.join(known)}.")

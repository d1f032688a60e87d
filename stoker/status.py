"""``stoker status``: what runs on every host now. One round trip for each host, all hosts at once."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from stoker.description import CannotStart, read
from stoker.facts import identity
from stoker.facts.probe import script
from stoker.facts.state import Container, HostState, parse
from stoker.ready.stamp import is_proven
from stoker.render.gateway import config_identity
from stoker.smoke.ssh import AccessError, Login, Shell, logins
from stoker.smoke.target import base_url, gateway_url
from stoker.spec.fleet import Fleet, Host
from stoker.spec.gpu_name import GpuName
from stoker.spec.instance import Instance
from stoker.spec.stack import Stack
from stoker.steps import gateway as gateway_steps
from stoker.steps.layout import READY
from stoker.steps.questions import questions
from stoker.steps.stack import backends

ALL_READY, NOT_ALL_READY, NOT_STARTED = 0, 1, 3

#: ready: this very start has answered a real request, and the engine is healthy now. unproven: healthy, no such answer yet.
#: silent: it runs and does not answer; mostly it is loading. down: it does not run. stale: a gateway with an older configuration.
#: unknown: its host could not be asked.
Health = Literal["ready", "unproven", "silent", "down", "stale", "unknown"]

_COLOURS: dict[Health, str] = {
    "ready": "green",
    "unproven": "yellow",
    "silent": "yellow",
    "down": "red",
    "stale": "red",
    "unknown": "red",
}

#: What the images of the lab carry (lab/doubles, lab/real) -> what of their host is simulated; the table must not look like one of
#: real cards and engines.
_SIMULATED = {
    '"stoker.lab":"simulated"': "GPUs and engines are simulated",
    '"stoker.lab":"real-cpu"': "GPUs are simulated, engines are real, on the CPU",
}


@dataclass(frozen=True)
class InstanceStatus:
    """One instance. ``gpu_memory_mib`` is used and total of each of its cards, neighbours on the card included; None when it
    uses none."""

    name: str
    gpus: tuple[GpuName, ...]
    url: str
    model: str
    container: str
    health: Health
    gpu_memory_mib: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True)
class GatewayStatus:
    """One gateway and the models that it offers."""

    name: str
    url: str
    models: tuple[str, ...]
    container: str
    health: Health


@dataclass(frozen=True)
class HostStatus:
    """One host. ``error`` says why nothing is known about it."""

    host: str
    error: str = ""
    system: str = ""
    driver: str = ""
    docker: str = ""
    #: What of it is simulated, in a sentence; empty on a real host.
    simulated: str = ""
    instances: list[InstanceStatus] = field(default_factory=list)
    gateways: list[GatewayStatus] = field(default_factory=list)

    @property
    def entries(self) -> list[InstanceStatus | GatewayStatus]:
        return [*self.instances, *self.gateways]

    @property
    def ready(self) -> bool:
        return not self.error and all(entry.health == "ready" for entry in self.entries)


def status(inventory: Path, overlays: Sequence[str] = (), limit: Sequence[str] = (), as_json: bool = False) -> int:
    """Print the status of the fleet. 0: everything is ready; 1: something is not; 3: the description cannot be used."""
    try:
        described = read(inventory, overlays, limit)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    fleet, wanted = described.fleet, described.hosts
    access = logins(described.inventory)
    with ThreadPoolExecutor(len(wanted)) as pool:
        found = list(pool.map(lambda host: ask(fleet, host, access.get(host.name)), wanted))
    if as_json:
        print(
            json.dumps(
                {"ready": all(host.ready for host in found), "hosts": [asdict(host) for host in found]}, indent=2
            )
        )
    else:
        show(found, Console(highlight=False))
    return ALL_READY if all(host.ready for host in found) else NOT_ALL_READY


def ask(fleet: Fleet, host: Host, login: Login | None) -> HostStatus:
    """One host's status. Never raises for a host that cannot be asked."""
    if login is None:
        return unknown(fleet, host, "it is not reached by SSH")
    shell = Shell(login)
    try:
        output = shell.run(f"sh -c {shlex.quote(script(questions(fleet, host)))}", sudo=True)
    except AccessError as error:
        return unknown(fleet, host, f"{error.reason}; {error.remedy}")
    finally:
        shell.close()
    return judge(fleet, host, parse(output.splitlines()), _simulated(output))


def _simulated(output: str) -> str:
    return next((words for label, words in _SIMULATED.items() if label in output), "")


def unknown(fleet: Fleet, host: Host, error: str) -> HostStatus:
    """The status of a host that could not be asked: what is described, and why nothing is known about it."""
    described = judge(fleet, host, HostState())
    return HostStatus(
        host.name,
        error=error,
        instances=[replace(entry, container="?", health="unknown") for entry in described.instances],
        gateways=[replace(entry, container="?", health="unknown") for entry in described.gateways],
    )


def judge(fleet: Fleet, host: Host, state: HostState, simulated: str = "") -> HostStatus:
    """A host's status from what its probe found. Pure."""
    return HostStatus(
        host.name,
        system=state.os_name,
        driver=state.driver or state.gpu_error,
        docker=state.docker_version or state.docker_error or "not installed",
        simulated=simulated,
        instances=[_instance(host, instance, state) for _, instance in host.instances()],
        gateways=[_gateway(fleet, host, stack, state) for stack in host.stacks if stack.gateway],
    )


def _instance(host: Host, instance: Instance, state: HostState) -> InstanceStatus:
    container = state.containers.get(instance.name)
    health: Health = "down"
    if container is not None and container.running:
        stamp = state.contents.get(f"{READY}/{instance.name}", "")
        proven = is_proven(container.id, container.started_at, stamp)
        health = "silent" if state.answers.get(instance.name) != "200" else "ready" if proven else "unproven"
    memory = None
    if host.profile_of(instance).uses_cards:
        cards = identity.by_name(state)
        of_it = [cards[name] for name in instance.gpus if name in cards]
        memory = tuple((card.used_mib, card.memory_mib) for card in of_it if card.used_mib is not None)
    url = base_url(host.address, instance.port)
    return InstanceStatus(instance.name, instance.gpus, url, instance.model, _container(container), health, memory)


def _gateway(fleet: Fleet, host: Host, stack: Stack, state: HostState) -> GatewayStatus:
    gateway = stack.gateway
    probe = gateway_steps.probe(stack)
    assert gateway is not None
    assert probe is not None
    container = state.containers.get(gateway.container)
    health: Health = "down"
    if container is not None and container.running:
        answer = state.answers.get(probe.name, "")
        wanted = config_identity(gateway, backends(fleet, gateway))
        health = "ready" if answer == wanted else "stale" if answer else "silent"
    models = tuple(pool.model for pool in gateway.pools)
    return GatewayStatus(gateway.container, gateway_url(host, gateway), models, _container(container), health)


def _container(container: Container | None) -> str:
    if container is None:
        return "absent"
    restarts = f", {container.restarts} restart{'s' if container.restarts > 1 else ''}" if container.restarts else ""
    return container.status + restarts


def show(hosts: Sequence[HostStatus], console: Console) -> None:
    """A table with a heading for each host, then one line with the sum."""
    rows = [row for host in hosts for row in _rows(host)]
    heads = ("INSTANCE", "GPU", "ADDRESS", "MODEL", "CONTAINER", "HEALTH", "MEMORY OF THE GPU")
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]

    def line(cells: Sequence[str], health: Health | None = None) -> str:
        padded = [escape(cell.ljust(width)) for cell, width in zip(cells, widths, strict=True)]
        if health:
            padded[5] = f"[{_COLOURS[health]}]{padded[5]}[/]"
        return "  ".join(padded).rstrip()

    console.print(f"[bold]{line(heads)}[/]", soft_wrap=True)
    for host in hosts:
        facts = host.error or f"{host.system}, driver {host.driver}, Docker {host.docker}"
        note = f", {host.simulated}" if host.simulated else ""
        console.print(f"[bold]{escape(host.host)}[/]  {escape(facts)}{note}", soft_wrap=True)
        for entry, cells in zip(host.entries, _rows(host), strict=True):
            console.print(line(cells, entry.health), soft_wrap=True)
    entries = [entry for host in hosts for entry in host.entries]
    ready = sum(entry.health == "ready" for entry in entries)
    console.print(f"{ready} of {len(entries)} ready")


def _rows(host: HostStatus) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for instance in host.instances:
        memory = "-"
        if instance.gpu_memory_mib is not None:
            shown = (f"{used / 1024:.1f} of {total / 1024:.1f} GiB" for used, total in instance.gpu_memory_mib)
            memory = ", ".join(shown) or "?"
        gpus = ",".join(map(str, instance.gpus))
        rows.append((instance.name, gpus, instance.url, instance.model, instance.container, instance.health, memory))
    for gateway in host.gateways:
        rows.append((gateway.name, "-", gateway.url, ", ".join(gateway.models), gateway.container, gateway.health, "-"))
    return rows

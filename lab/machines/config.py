"""lab/lab.toml, read and checked."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.machines.errors import LabError
from lab.machines.paths import LAB

FILE = LAB / "lab.toml"
RELEASES = ("trixie", "bookworm")
CONTAINER_PREFIX = "stoker-lab-"
KINDS = ("gpu", "internet")
NAME = re.compile(r"[a-z][a-z0-9-]{0,12}\Z")
"""A machine's name is its host name, its container's name, and with "v-" before it a network device (15 characters at most)."""
UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True)
class Gpu:
    """One card in a host: a model of lab/cards.toml and the UUID that nvidia-smi shows."""

    card: str
    uuid: str


@dataclass(frozen=True)
class Machine:
    """One machine of the lab."""

    name: str
    kind: str
    address: str
    release: str
    gpus: tuple[Gpu, ...] = ()
    on_demand: bool = False
    """Made only when it is asked for by name; its absence is no fault."""

    @property
    def container(self) -> str:
        """The machine's container in the lab's Docker."""
        return f"{CONTAINER_PREFIX}{self.name}"

    @property
    def cable(self) -> str:
        """The bridge's end of the machine's virtual cable."""
        return f"v-{self.name}"

    @property
    def how_to_start(self) -> str:
        """What a person is told who wants something of the machine while it is not up."""
        return f"{self.name} is not up; start it with lab/up" + (f" --with {self.name}" if self.on_demand else "")

    def cards(self) -> dict[str, int]:
        """How many of each card the machine has."""
        return dict(Counter(gpu.card for gpu in self.gpus))

    def entry(self) -> dict[str, Any]:
        """The machine as plain data, for the driver double."""
        return {
            "name": self.name,
            "address": self.address,
            "release": self.release,
            "gpus": [{"card": gpu.card, "uuid": gpu.uuid} for gpu in self.gpus],
        }


@dataclass(frozen=True)
class Network:
    """The lab's network: one bridge in one namespace, without any way out."""

    namespace: str
    bridge: str
    prefix: int
    controller: str
    gateway: str


@dataclass(frozen=True)
class Lab:
    """Everything in lab/lab.toml."""

    network: Network
    forward: tuple[str, int]
    machines: tuple[Machine, ...] = field(default=())

    @property
    def hosts(self) -> tuple[Machine, ...]:
        """The GPU hosts that every lab has."""
        return tuple(machine for machine in self.gpu_machines if not machine.on_demand)

    @property
    def gpu_machines(self) -> tuple[Machine, ...]:
        """All GPU hosts, those on demand too."""
        return tuple(machine for machine in self.machines if machine.kind == "gpu")

    @property
    def always(self) -> tuple[Machine, ...]:
        """The machines without which the lab is not up."""
        return tuple(machine for machine in self.machines if not machine.on_demand)

    @property
    def internet(self) -> Machine:
        """The machine that stands for the internet."""
        return next(machine for machine in self.machines if machine.kind == "internet")

    def machine(self, name: str) -> Machine:
        """The machine with this name or address. Raises LabError naming the known ones."""
        for machine in self.machines:
            if name in (machine.name, machine.address):
                return machine
        known = ", ".join(f"{machine.name} ({machine.address})" for machine in self.machines)
        raise LabError(f"no machine {name!r} in the lab; there are: {known}")

    def host(self, name: str) -> Machine:
        """The GPU host with this name or address. Raises LabError for another machine."""
        machine = self.machine(name)
        if machine.kind != "gpu":
            known = ", ".join(host.name for host in self.gpu_machines)
            raise LabError(f"{machine.name} is not a GPU host; the GPU hosts are: {known}")
        return machine


def load(file: Path = FILE) -> Lab:
    """Read the lab's description. Raises LabError with every mistake in it."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        network = Network(**data["network"])
        forward = (str(data["forward"]["address"]), int(data["forward"]["port"]))
        machines = tuple(_machine(entry) for entry in data["machine"])
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise LabError(f"{file}: {error}") from None
    except KeyError as error:
        raise LabError(f"{file}: the entry {error} is missing") from None
    lab = Lab(network, forward, machines)
    mistakes = check(lab)
    if mistakes:
        raise LabError(f"{file}:\n    " + "\n    ".join(mistakes))
    return lab


def check(lab: Lab) -> list[str]:
    """Every mistake in the description, in words; empty when there is none."""
    subnet = ipaddress.ip_network(f"{lab.network.gateway}/{lab.network.prefix}", strict=False)
    mistakes = []
    for machine in lab.machines:
        where = f"machine {machine.name!r}"
        if not NAME.match(machine.name):
            mistakes.append(f"{where}: a name is 1 to 13 small letters, digits and hyphens, a letter first")
        if machine.kind not in KINDS:
            mistakes.append(f"{where}: kind {machine.kind!r} is not one of {', '.join(KINDS)}")
        if machine.release not in RELEASES:
            mistakes.append(f"{where}: release {machine.release!r} is not one of {', '.join(RELEASES)}")
        if not _inside(machine.address, subnet):
            mistakes.append(f"{where}: address {machine.address!r} is not in the lab's network {subnet}")
        mistakes += [
            f"{where}: GPU {index}: {gpu.uuid!r} is not GPU- and a UUID in small letters"
            for index, gpu in enumerate(machine.gpus)
            if not UUID.match(gpu.uuid)
        ]
    addresses = [lab.network.controller] + [machine.address for machine in lab.machines]
    mistakes += _twice("name", [machine.name for machine in lab.machines])
    mistakes += _twice("address", addresses)
    mistakes += _twice("GPU uuid", [gpu.uuid for machine in lab.machines for gpu in machine.gpus])
    internets = [machine for machine in lab.machines if machine.kind == "internet"]
    if len(internets) != 1 or internets[0].address != lab.network.gateway or internets[0].on_demand:
        mistakes.append(
            f"exactly one machine of kind internet is needed, with the gateway's address {lab.network.gateway} and not on demand"
        )
    return mistakes


def _machine(entry: dict[str, Any]) -> Machine:
    gpus = tuple(Gpu(**gpu) for gpu in entry.get("gpus", []))
    return Machine(**{**entry, "gpus": gpus})


def _inside(address: str, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(address) in subnet
    except ValueError:
        return False


def _twice(what: str, values: list[str]) -> list[str]:
    return [f"the {what} {value} is used twice" for value in sorted(set(values)) if values.count(value) > 1]

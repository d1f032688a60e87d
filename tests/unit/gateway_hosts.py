"""The hosts of the default fleet's two gateways, as far as draining touches them. Simulated; the shell that writes the files is real."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.fleet import EMBEDDING, LLM, make_fleet

from stoker.facts.paths import HOST_GATEWAYS
from stoker.spec.fleet import Host
from stoker.steps.stack import backends

FLEET = make_fleet()
GATEWAYS = {LLM: "vllm_nginx", EMBEDDING: "bge_nginx"}


@dataclass
class Hosts:
    """Both gateways' hosts: the file of each is a real one, and the gateway shows what stands in it."""

    root: Path
    down: set[str] = field(default_factory=set)
    proving: set[str] = field(default_factory=set)
    #: Instance -> what the gateways say that it runs, one value a look; the last one stays.
    in_flight: dict[str, list[int]] = field(default_factory=dict)
    silent: bool = False

    def run(self, host: Host, command: str) -> str:
        container = GATEWAYS[host.name]
        directory = self.root / container
        directory.mkdir(exist_ok=True)
        if command.startswith("docker exec "):
            assert command.split()[2] == container
            return "" if self.silent else json.dumps({"members": self._members(host, directory / "drained")})
        local = command.replace(f"{HOST_GATEWAYS}/{container}", str(directory))
        return subprocess.run(["sh", "-c", local], check=True, capture_output=True, text=True).stdout

    def listed(self, host: str) -> list[str]:
        file = self.root / GATEWAYS[host] / "drained"
        return file.read_text().splitlines() if file.exists() else []

    def _members(self, host: Host, file: Path) -> list[dict[str, Any]]:
        listed = file.read_text().splitlines() if file.exists() else []
        gateway = next(stack.gateway for stack in host.stacks if stack.gateway)
        return [
            {
                "name": member.name,
                "pool": backend.pool.name,
                "health": self._health(member.name),
                "drained": member.name in listed,
                "in_flight": self._running(member.name, member.name in listed),
            }
            for backend in backends(FLEET, gateway)
            for member in backend.members
        ]

    def _health(self, name: str) -> str:
        return "down" if name in self.down else "proving" if name in self.proving else "up"

    def _running(self, name: str, drained: bool) -> int:
        values = self.in_flight.get(name, [0])
        return values.pop(0) if drained and len(values) > 1 else values[0]

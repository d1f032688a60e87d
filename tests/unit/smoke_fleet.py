"""A fleet of stand-ins on 127.0.0.1, and a stand-in for the shells of its hosts. Simulated."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoke_stand_in import StandIn

from stoker.smoke.plan import EVERYTHING, Plan, Selection, plan
from stoker.smoke.ssh import AccessError
from stoker.spec.build import RawHost, build_fleet
from stoker.spec.fleet import Fleet

VERSIONS = {
    "vllm": "vllm/vllm-openai:v0.19.1",
    "ollama": "ollama/ollama:0.32.15",
    "nginx": "nginx:1.30.6-alpine",
    "docker": "28.5.2",
    "compose": "2.40.3",
    "container_toolkit": "1.20.0-1",
    "driver_branch": 580,
}
MODELS = {
    "llama": {"repository": "org/llama", "directory": "llama"},
    "bge-m3": {"library": "bge-m3:567m", "parameters": {"num_ctx": 8192, "num_batch": 8192}, "dimensions": 8},
}
GPU_OF = {"llama_0": "GPU-0", "llama_1": "GPU-0", "bge_0": "GPU-1"}


class FakeDocker:
    """The containers of the fleet, all as described."""

    def __init__(self, logs: StandIn) -> None:
        self.containers: dict[str, dict[str, Any]] = {name: self._running(name) for name in (*GPU_OF, "nginx_0")}
        self._gateway = logs

    def inspect_container(self, name: str) -> dict[str, Any]:
        return self.containers[name]

    def logs(self, name: str, **_: object) -> bytes:
        assert name == "nginx_0"
        return "".join(f"{line}\n" for line in self._gateway.log).encode()

    def _running(self, name: str) -> dict[str, Any]:
        engine = "nginx" if name == "nginx_0" else "ollama" if name == "bge_0" else "vllm"
        requests = [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={GPU_OF[name]}"]}] if name in GPU_OF else None
        return {
            "Id": name,
            "RestartCount": 0,
            "State": {"Status": "running", "StartedAt": "t0"},
            "Config": {"Image": VERSIONS[engine], "Env": []},
            "HostConfig": {"DeviceRequests": requests},
        }


@dataclass
class FakeShell:
    """Answers the commands of the checks; ``unreachable`` is what the connection fails with."""

    client: FakeDocker
    unreachable: str = ""
    smi: str = "0, GPU-0, 29491, 32768, 00000000:1A:00.0\n1, GPU-1, 1700, 32768, 00000000:3B:00.0\n"
    record: str = ""
    closed: bool = False
    outcomes: list[str] = field(default_factory=list)

    def run(self, command: str, sudo: bool = False) -> str:
        self._reach()
        words = command.split()
        if words[:2] == ["cat", "/var/lib/stoker/gpus"]:
            return self.record
        if words[0] == "date":
            return "1000\n"
        if words[:2] == ["docker", "version"]:
            return "28.5.2\n"
        if words[:2] == ["docker", "exec"]:
            return GPU_OF[words[2]] + "\n"
        return self.smi

    def outcome(self, command: str, seconds: float, stdin: str = "") -> tuple[int, str, str]:
        self._reach()
        self.outcomes.append(command)
        done = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, text=True, timeout=seconds)
        return done.returncode, done.stdout, done.stderr

    def docker(self) -> FakeDocker:
        self._reach()
        return self.client

    def line(self, command: str, sudo: bool = False) -> str:
        return f"ssh box '{command}'"

    def close(self) -> None:
        self.closed = True

    def _reach(self) -> None:
        if self.unreachable:
            raise AccessError(self.unreachable, "repair the network")


@dataclass
class Rack:
    """The whole fleet: two Llama on one card, one bge-m3, a gateway in front."""

    fleet: Fleet
    shell: FakeShell
    engines: dict[str, StandIn] = field(default_factory=dict)

    def plan(self, selection: Selection = EVERYTHING, seconds: int = 5) -> Plan:
        made = plan(self.fleet, {}, selection, seconds)
        for witness in made.witnesses.values():
            witness.shell = self.shell  # type: ignore[assignment]
        return made


@contextmanager
def rack(
    environment: Mapping[str, str] | None = None, certificate: Path | None = None, **settings: object
) -> Iterator[Rack]:
    """Everything serving, the gateway by HTTPS where it has a certificate; break what the test is about."""
    with ExitStack() as stack:

        def served(*models: str, **values: Any) -> StandIn:
            return stack.enter_context(StandIn(models, **values).serving())

        engines = {"llama_0": served("llama"), "llama_1": served("llama"), "bge_0": served("bge-m3")}
        engines["nginx_0"] = served("llama", "bge-m3", members=("llama_0", "llama_1"), certificate=certificate)
        data = host_data(engines, environment or {})
        if certificate:
            files = {"certificate": "/etc/stoker/tls/fullchain.pem", "key": "/etc/stoker/tls/privkey.pem"}
            data["stacks"][0]["gateway"]["tls"] = {"domain": "gateway.test", **files}
        fleet = build_fleet([RawHost("box", data | settings, lambda _: "test")])
        yield Rack(fleet, FakeShell(FakeDocker(engines["nginx_0"])), engines)


def host_data(engines: Mapping[str, StandIn], environment: Mapping[str, str]) -> dict[str, Any]:
    """What group_data would say of the host."""
    llama = {
        "engine": "vllm",
        "model": "llama",
        "gpus": [0],
        "arguments": {"gpu-memory-utilization": 0.45},
        "environment": dict(environment),
    }
    return {
        "versions": VERSIONS,
        "models": MODELS,
        "gpus": {"count": 2, "card": "V100", "memory_gib": 32},
        "address": "127.0.0.1",
        "stacks": [
            {
                "project": "p",
                "compose_file": "p.yaml",
                "model_directory": "/data/models",
                "instances": [
                    {"name": "llama_0", "port": engines["llama_0"].port, **llama},
                    {"name": "llama_1", "port": engines["llama_1"].port, **llama},
                    {
                        "name": "bge_0",
                        "engine": "ollama",
                        "model": "bge-m3",
                        "gpus": [1],
                        "port": engines["bge_0"].port,
                    },
                ],
                "gateway": {
                    "container": "nginx_0",
                    "port": engines["nginx_0"].port,
                    "config_file": "nginx.conf",
                    "allowed_networks": ["127.0.0.0/8"],
                    "pools": [
                        {"name": "llama", "model": "llama", "kind": "chat", "prefix": "/llama", "default": True},
                        {"name": "embed", "model": "bge-m3", "kind": "embeddings", "default": True},
                    ],
                },
            }
        ],
    }

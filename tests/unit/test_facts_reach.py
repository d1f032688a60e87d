"""Which download sources are tried from a host, and what the attempt finds, executed by dash against local ports."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.fleet import Data
from support.states import bare, converged, fleet_and_host

from stoker.facts.reach import Reach
from stoker.facts.state import HostState
from stoker.plan.downloads import addresses


def sources_of(group: str, settings: dict[str, object], state: HostState | None = None) -> dict[str, tuple[str, int]]:
    """What a host of a group would try, bare when no state is given."""

    def change(data: Data) -> None:
        for name, value in settings.items():
            if name == "mirrors":
                data["all"]["mirrors"] |= value
            else:
                data["all"][name] = value

    _, host = fleet_and_host(group, change)
    return addresses(host, bare(host) if state is None else state)


def test_a_bare_host_needs_every_publisher() -> None:
    assert sources_of("llm", {}) == {
        "https://nvidia.github.io/libnvidia-container": ("nvidia.github.io", 443),
        "https://download.docker.com/linux": ("download.docker.com", 443),
        "https://registry-1.docker.io": ("registry-1.docker.io", 443),
        "https://huggingface.co": ("huggingface.co", 443),
    }


def test_ollama_needs_its_registry_and_no_hub() -> None:
    found = sources_of("embedding", {})
    assert found["https://registry.ollama.ai"] == ("registry.ollama.ai", 443)
    assert "https://huggingface.co" not in found


def test_mirrors_stand_for_the_publishers() -> None:
    mirrors = {
        "docker": "http://mirror.example.org:8080/docker",
        "container_toolkit": "http://mirror.example.org/nvidia",
        "registries": ["http://10.0.0.1:5000", "https://registry.example.org"],
        "hub": "https://hf-mirror.com",
    }
    assert sources_of("llm", {"mirrors": mirrors}) == {
        "http://mirror.example.org/nvidia": ("mirror.example.org", 80),
        "http://mirror.example.org:8080/docker": ("mirror.example.org", 8080),
        "http://10.0.0.1:5000": ("10.0.0.1", 5000),
        "https://registry.example.org": ("registry.example.org", 443),
        "https://hf-mirror.com": ("hf-mirror.com", 443),
    }


def test_behind_a_proxy_the_proxy_counts() -> None:
    found = sources_of("llm", {"proxy": {"https": "http://proxy.example.org:3128"}})
    assert set(found.values()) == {("proxy.example.org", 3128)}


def test_the_distributions_docker_needs_no_repository_of_docker() -> None:
    assert "https://download.docker.com/linux" not in sources_of("llm", {"docker": {"source": "distribution"}})


@pytest.mark.parametrize("group", ["llm", "embedding"])
def test_nothing_is_tried_when_nothing_has_to_be_downloaded(group: str) -> None:
    fleet, host = fleet_and_host(group)
    assert addresses(host, converged(fleet, host)) == {}


def test_only_what_is_missing_is_tried() -> None:
    fleet, host = fleet_and_host("llm")
    state = replace(converged(fleet, host), model_files={})
    assert list(addresses(host, state)) == ["https://huggingface.co"]


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_what_can_be_reached(listening: int) -> None:
    fact = Reach()
    command = fact.command(
        addresses={
            "http://localhost/a": ("localhost", listening),
            "http://127.0.0.1/b?c=d&e": ("127.0.0.1", listening),
            "http://127.0.0.1/closed": ("127.0.0.1", closed_port()),
            "http://no.such.name.invalid": ("no.such.name.invalid", 80),
            # An address without a name: there is nothing to resolve.
            "http://127.9.9.9:9": ("127.9.9.9", 9),
        }
    )
    done = subprocess.run(["dash", "-c", str(command)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert fact.process(done.stdout.splitlines()) == {
        "http://localhost/a": "ok",
        "http://127.0.0.1/b?c=d&e": "ok",
        "http://127.0.0.1/closed": "connection",
        "http://no.such.name.invalid": "name",
        "http://127.9.9.9:9": "connection",
    }

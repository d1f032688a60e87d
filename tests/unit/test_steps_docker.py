"""daemon.json is merged, never overwritten; dockerd restarts only when it has to, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.fleet import Data
from support.states import bare, converged, fleet_and_host

from stoker.steps import docker

OURS = {
    "log-driver": "json-file",
    "log-opts": {"max-size": "50m", "max-file": "3"},
    "features": {"cdi": True},
}


def merged(current: Any) -> dict[str, Any]:
    _, host = fleet_and_host()
    text = docker.merged(json.dumps(current), docker.daemon_settings(host))
    assert text is not None
    result: dict[str, Any] = json.loads(text)
    return result


def test_an_empty_file_becomes_ours() -> None:
    _, host = fleet_and_host()
    for text in ("", " \n", "{}"):
        assert json.loads(docker.merged(text, docker.daemon_settings(host)) or "") == OURS


def test_foreign_keys_stay() -> None:
    foreign = {
        "data-root": "/mnt/docker",
        "insecure-registries": ["10.0.0.1:5000"],
        "features": {"buildkit": True},
        "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}},
        "log-opts": {"tag": "{{.Name}}", "max-size": "1g"},
    }
    assert merged(foreign) == {
        **foreign,
        "log-driver": "json-file",
        "log-opts": {"tag": "{{.Name}}", "max-size": "50m", "max-file": "3"},
        "features": {"buildkit": True, "cdi": True},
    }


def test_what_is_right_already_is_not_written_again() -> None:
    _, host = fleet_and_host()
    reordered = {"data-root": "/mnt/docker", **dict(reversed(OURS.items()))}
    assert docker.merged(json.dumps(reordered), docker.daemon_settings(host)) is None


def test_registries_and_proxies() -> None:
    def change(data: Data) -> None:
        data["all"]["mirrors"]["registries"] = ["https://registry.example.org"]
        data["all"]["proxy"] = {"https": "http://proxy.example.org:3128"}
        data["all"]["docker"] = {"daemon": {"mtu": 1400}, "log_max_file": 5}

    _, host = fleet_and_host(change=change)
    assert docker.daemon_settings(host) == {
        **OURS,
        "log-opts": {"max-size": "50m", "max-file": "5"},
        "mtu": 1400,
        "registry-mirrors": ["https://registry.example.org"],
        "proxies": {"https-proxy": "http://proxy.example.org:3128", "no-proxy": "localhost,127.0.0.1"},
    }


@pytest.mark.parametrize("text", ['{"log-driver": ', "[]", '"text"', "{} {}"])
def test_a_broken_file_is_not_touched(text: str) -> None:
    _, host = fleet_and_host()
    with pytest.raises(ValueError, match=r"object|Expecting|Extra data"):
        docker.merged(text, docker.daemon_settings(host))


def test_settings_come_before_packages_so_that_the_first_start_has_them() -> None:
    _, host = fleet_and_host()
    write, install, start = docker.actions(host, bare(host))
    assert "systemctl restart" not in write.script
    assert install.description.startswith("install docker-ce")
    assert start.script.startswith("systemctl enable --now docker.service")


def test_settings_are_loaded_when_only_a_plugin_is_installed_beside() -> None:
    """Installing a plugin does not restart dockerd, so the new daemon.json would never be read."""
    fleet, host = fleet_and_host()
    state = converged(fleet, host)
    packages = {name: version for name, version in state.packages.items() if name != "docker-buildx-plugin"}
    write, install, _ = docker.actions(host, replace(state, packages=packages, contents={}))
    assert "systemctl restart docker.service" in write.script
    assert write.interrupts == "6 running containers"
    assert install.interrupts == ""


def test_dockerd_is_restarted_once_when_it_is_replaced_anyway() -> None:
    fleet, host = fleet_and_host()
    state = converged(fleet, host)
    packages = {**state.packages, "docker-ce": "5:27.5.1-1~debian.13~trixie"}
    write, install, _ = docker.actions(host, replace(state, packages=packages, contents={}))
    assert "systemctl restart" not in write.script
    assert (write.interrupts, install.interrupts) == ("", "6 running containers")


def test_nothing_is_interrupted_where_nothing_runs() -> None:
    fleet, host = fleet_and_host()
    state = replace(converged(fleet, host), containers={}, contents={})
    (write,) = docker.actions(host, state)
    assert write.description.endswith("and restart dockerd")
    assert write.interrupts == ""


@pytest.mark.parametrize(
    ("os_id", "wanted"),
    [
        ("debian", ["docker.io", "docker-cli", "docker-compose"]),
        ("ubuntu", ["docker.io", "docker-compose-v2"]),
    ],
)
def test_the_distributions_own_packages(os_id: str, wanted: list[str]) -> None:
    def change(data: Data) -> None:
        data["all"]["docker"] = {"source": "distribution"}

    _, host = fleet_and_host(change=change)
    found = docker.packages(host, replace(bare(host), os_id=os_id))
    assert [(package.name, package.version) for package in found] == [(name, "") for name in wanted]


def test_without_cdi_systemd_keeps_its_hands_off() -> None:
    """A daemon-reload would take the GPUs from containers whose device rules systemd manages."""

    def change(data: Data) -> None:
        data["all"]["docker"] = {"source": "distribution"}

    _, host = fleet_and_host(change=change)
    text = docker.merged('{"exec-opts": ["native.cgroupdriver=systemd"]}', docker.daemon_settings(host))
    assert json.loads(text or "")["exec-opts"] == ["native.cgroupdriver=cgroupfs"]
    assert "features" not in json.loads(text or "")


def test_apt_is_asked_for_any_revision_of_the_pinned_version() -> None:
    _, host = fleet_and_host()
    arguments = [package.argument for package in docker.packages(host, bare(host))]
    assert arguments == [
        "'docker-ce=5:28.5.2-*'",
        "'docker-ce-cli=5:28.5.2-*'",
        "containerd.io",
        "docker-buildx-plugin",
        "'docker-compose-plugin=2.40.3-*'",
    ]

"""What a host has of its own that a deploy would stumble over: each finding beside the nearest state that is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from support.fleet import Data
from support.states import DRIVER, NOW, bare, converged, fleet_and_host

from stoker.facts.state import HostState
from stoker.facts.surroundings import DockerInfo, Dockers, Guards, Packaging
from stoker.plan.preflight import findings

DAEMON_JSON = "/etc/docker/daemon.json"
PLUGIN = "/root/.docker/cli-plugins/docker-compose"
LISTS = "/etc/apt/sources.list.d"
DOCKER_DEB = "https://download.docker.com/linux/debian trixie stable"
NOT_LOADED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."

Change = Callable[[HostState], HostState]


def having(**changes: Any) -> Change:
    return lambda state: replace(state, **changes)


def with_package(name: str, change: Change) -> Change:
    return lambda state: change(replace(state, packages={**state.packages, name: "1.0"}))


def listed(path: str, *lines: str) -> Change:
    return having(packaging=Packaging(sources=tuple((path, line) for line in lines)))


def daemon_json(text: str) -> Change:
    return having(contents={DAEMON_JSON: text})


@dataclass(frozen=True)
class Case:
    """A bare host with one thing about it, what is said, and a state close by of which nothing is."""

    change: Change
    reason: str  #: part of it
    remedy: str  #: part of it
    anchor: str
    severity: str
    near: Change


CASES = {
    "podman by another name": Case(
        having(dockers=Dockers("/usr/local/bin/docker", is_podman=True), docker_version="5.4.2"),
        "/usr/local/bin/docker is Podman under Docker's name",
        "rm /usr/local/bin/docker",
        "docker-is-podman",
        "refuse",
        with_package("podman-docker", having(dockers=Dockers("/usr/bin/docker", is_podman=True))),
    ),
    "root talks to a rootless Docker": Case(
        with_package("docker-ce", having(docker_version="28.5.2", docker_info=DockerInfo("/home/x", rootless=True))),
        "is a rootless one",
        "docker context use default",
        "docker-rootless",
        "refuse",
        with_package("docker-ce", having(docker_version="28.5.2", docker_info=DockerInfo("/var/lib/docker"))),
    ),
    "a rootless Docker beside": Case(
        having(dockers=Dockers("/usr/bin/docker", rootless_users=("ada",)), guards=Guards(userns_restricted=True)),
        "a rootless Docker of ada runs beside the system's (and AppArmor restricts",
        "nothing, if it stays away",
        "docker-rootless",
        "warn",
        having(guards=Guards(userns_restricted=True)),
    ),
    "unpacked by hand": Case(
        having(docker_version="24.0.9", dockers=Dockers("/usr/local/bin/docker")),
        "a Docker 24.0.9 runs that no package brought",
        "docker.service below /etc/systemd/system",
        "docker-not-packaged",
        "refuse",
        with_package("docker.io", having(docker_version="24.0.9", dockers=Dockers("/usr/bin/docker"))),
    ),
    "an old Compose before the package's": Case(
        having(dockers=Dockers(composes={PLUGIN: "v2.29.7"})),
        f"{PLUGIN} (Compose v2.29.7) goes before the package's Compose and is older than 2.30",
        f"rm {PLUGIN}",
        "compose",
        "refuse",
        having(dockers=Dockers(composes={"/usr/local/bin/docker-compose": "2.29.7"})),
    ),
    "a Compose that says nothing": Case(
        having(dockers=Dockers(composes={PLUGIN: ""})),
        "a Compose that does not tell its version",
        f"rm {PLUGIN}",
        "compose",
        "refuse",
        having(dockers=Dockers(composes={})),
    ),
    "a newer Compose before the package's": Case(
        having(dockers=Dockers(composes={PLUGIN: "2.30.0"})),
        f"{PLUGIN} (Compose 2.30.0) goes before the package's Compose",
        f"rm {PLUGIN}",
        "compose",
        "warn",
        having(dockers=Dockers(composes={"/usr/local/bin/docker-compose": "v2.0.0"})),
    ),
    "Compose 1 beside": Case(
        having(dockers=Dockers(composes={"/usr/local/bin/docker-compose": "1.29.2"})),
        "is Compose 1.29.2: it cannot read",
        "use `docker compose`",
        "compose",
        "note",
        having(dockers=Dockers(composes={"/usr/local/bin/docker-compose": "2.30.0"})),
    ),
    "somebody's daemon.json": Case(
        daemon_json(
            json.dumps(
                {
                    "log-driver": "journald",
                    "log-opts": {"max-size": "10m"},
                    "default-runtime": "nvidia",
                    "data-root": "/srv/docker",
                    "mtu": 1400,
                }
            )
        ),
        'change: log-driver "journald" -> "json-file", log-opts.max-size "10m" -> "50m"; default-runtime, data-root stay',
        "set `docker` in group_data",
        "daemon-json-changes",
        "note",
        daemon_json(json.dumps({"log-driver": "json-file", "default-runtime": "nvidia", "mtu": 1400})),
    ),
    "dpkg was interrupted": Case(
        having(packaging=Packaging(("linux-image-amd64", "initramfs-tools"))),
        "was interrupted (linux-image-amd64, initramfs-tools)",
        "dpkg --configure -a",
        "dpkg-interrupted",
        "refuse",
        having(packaging=Packaging()),
    ),
    "dpkg is at work": Case(
        having(packaging=Packaging(("linux-image-amd64",), "unattended-upgr (process 812)")),
        "unattended-upgr (process 812) is installing packages",
        "the deploy waits",
        "apt-busy",
        "note",
        having(packaging=Packaging()),
    ),
    "Docker's repository by another key": Case(
        listed(
            f"{LISTS}/archive.list",
            f"deb [arch=amd64 signed-by=/usr/share/keyrings/docker.gpg] {DOCKER_DEB}",
        ),
        f"{LISTS}/archive.list lists https://download.docker.com/linux/debian with another key",
        f"take it out of {LISTS}/archive.list",
        "apt-conflict",
        "refuse",
        listed(f"{LISTS}/archive.list", f"deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] {DOCKER_DEB}"),
    ),
    "without any key": Case(
        listed("/etc/apt/sources.list", f"deb {DOCKER_DEB}"),
        "/etc/apt/sources.list lists https://download.docker.com/linux/debian with another key",
        "take it out",
        "apt-conflict",
        "refuse",
        # Another release of Debian is another repository.
        listed("/etc/apt/sources.list", f"deb {DOCKER_DEB.replace('trixie', 'bookworm')}"),
    ),
    "NVIDIA's repository as the architecture is written out": Case(
        listed(f"{LISTS}/nv.list", "deb https://nvidia.github.io/libnvidia-container/stable/deb/amd64/ /"),
        f"{LISTS}/nv.list lists https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)",
        "take it out",
        "apt-conflict",
        "refuse",
        # A leftover of NVIDIA's old instructions: the deploy sets it aside.
        listed(
            f"{LISTS}/libnvidia-container.list", "deb https://nvidia.github.io/libnvidia-container/stable/deb/amd64/ /"
        ),
    ),
    "in the newer form": Case(
        listed(
            f"{LISTS}/mine.sources",
            "URIs: https://download.docker.com/linux/debian/",
            "Suites: trixie",
            "Signed-By: /usr/share/keyrings/docker.gpg",
        ),
        f"{LISTS}/mine.sources lists https://download.docker.com/linux/debian",
        "take it out",
        "apt-conflict",
        "refuse",
        listed(
            f"{LISTS}/mine.sources",
            "Enabled: no",
            "URIs: https://download.docker.com/linux/debian/",
            "Suites: trixie",
            "Signed-By: /usr/share/keyrings/docker.gpg",
        ),
    ),
    "SELinux": Case(
        having(guards=Guards(selinux_enforcing=True)),
        "SELinux is enforcing",
        "container_file_t",
        "selinux",
        "warn",
        having(guards=Guards(selinux_enforcing=False)),
    ),
    "AppArmor without its parser": Case(
        having(guards=Guards(apparmor=True)),
        "apparmor_parser is missing",
        "apt install apparmor",
        "apparmor",
        "note",
        having(guards=Guards(apparmor=True, apparmor_parser=True)),
    ),
    "cgroup v1 under a new Docker": Case(
        with_package("docker-ce", having(docker_version="29.0.0", guards=Guards(cgroup_version=1))),
        "cgroup v1, which Docker 29 calls deprecated",
        "systemd.unified_cgroup_hierarchy=1",
        "cgroup-v1",
        "warn",
        having(guards=Guards(cgroup_version=1)),  # the pinned Docker is older
    ),
    "the next boot loads another driver": Case(
        having(module_version="580.180.01"),
        f"driver {DRIVER} is loaded, the next reboot loads 580.180.01",
        "reboot at a time of your own",
        "driver-reboot",
        "warn",
        having(module_version=DRIVER),
    ),
    "the next boot loads a driver without the card": Case(
        having(module_version="595.10.01"),
        "the next reboot loads 595.10.01, which has no support for Tesla V100",
        "go back to branch 580",
        "driver-reboot",
        "warn",
        having(module_version=""),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_finding_and_the_state_beside_it(case: Case) -> None:
    _, host = fleet_and_host("llm")
    (found,) = findings(host, case.change(bare(host)), NOW)
    assert case.reason in found.reason
    assert case.remedy in found.remedy
    assert (found.anchor, found.severity) == (case.anchor, case.severity)
    assert findings(host, case.near(bare(host)), NOW) == []


@pytest.mark.parametrize(
    ("guards", "said"),
    [
        (Guards(secure_boot=True), "Secure Boot is on"),
        (Guards(nouveau=True), "nouveau has the cards"),
    ],
)
def test_why_the_driver_may_not_be_loaded(guards: Guards, said: str) -> None:
    _, host = fleet_and_host("llm")
    state = replace(bare(host), gpus=(), driver="", gpu_error=NOT_LOADED)
    (plain,) = findings(host, state, NOW)
    (hinted,) = findings(host, replace(state, guards=guards), NOW)
    assert said in hinted.remedy
    assert said not in plain.remedy
    assert findings(host, replace(bare(host), guards=guards), NOW) == []


def test_a_finished_host_is_not_refused_for_what_only_an_installation_needs() -> None:
    fleet, host = fleet_and_host("llm")
    state = converged(fleet, host)
    (found,) = findings(host, replace(state, packaging=Packaging(("linux-image-amd64",))), NOW)
    assert found.severity == "warn"
    assert findings(host, replace(state, packaging=Packaging((), "apt-get (process 7)")), NOW) == []


def test_the_distributions_docker_must_know_gpus() -> None:
    def change(data: Data) -> None:
        data["all"]["docker"] = {"source": "distribution"}

    _, host = fleet_and_host("llm", change)
    old, new = (
        with_package("docker.io", having(docker_version=version))(bare(host)) for version in ("18.09.9", "19.03.0")
    )
    (found,) = findings(host, old, NOW)
    assert (found.anchor, found.severity) == ("docker-too-old", "refuse")
    assert findings(host, new, NOW) == []

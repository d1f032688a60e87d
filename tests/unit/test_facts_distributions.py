"""Recorded facts of distributions: the repository files that a deploy writes there, and which are refused.

The os-release texts are those of the released systems. Debian 12 and 13 are also deployed in the lab; Ubuntu is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from support.fleet import Data
from support.states import DRIVER, DRIVER_PACKAGES, NOW, cards, fleet_and_host, smi_row

from stoker.facts.state import SECTION, HostState, parse
from stoker.plan.preflight import findings
from stoker.steps import docker, sources
from stoker.steps.action import File

DEBIAN_13 = """PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
VERSION="13 (trixie)"
VERSION_CODENAME=trixie
DEBIAN_VERSION_FULL=13.1
ID=debian
HOME_URL="https://www.debian.org/"
SUPPORT_URL="https://www.debian.org/support"
BUG_REPORT_URL="https://bugs.debian.org/"
"""

DEBIAN_12 = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
SUPPORT_URL="https://www.debian.org/support"
BUG_REPORT_URL="https://bugs.debian.org/"
"""

DEBIAN_11 = DEBIAN_12.replace("12", "11").replace("bookworm", "bullseye")

UBUNTU_22 = """PRETTY_NAME="Ubuntu 22.04.5 LTS"
NAME="Ubuntu"
VERSION_ID="22.04"
VERSION="22.04.5 LTS (Jammy Jellyfish)"
VERSION_CODENAME=jammy
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
UBUNTU_CODENAME=jammy
"""

UBUNTU_24 = """PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
UBUNTU_CODENAME=noble
LOGO=ubuntu-logo
"""

FEDORA = """NAME="Fedora Linux"
VERSION="42 (Server Edition)"
RELEASE_TYPE=stable
ID=fedora
VERSION_ID=42
VERSION_CODENAME=""
PLATFORM_ID="platform:f42"
PRETTY_NAME="Fedora Linux 42 (Server Edition)"
ANSI_COLOR="0;38;2;60;110;180"
LOGO=fedora-logo-icon
VARIANT_ID=server
"""

MINT = UBUNTU_24.replace("ID=ubuntu", "ID=linuxmint").replace("Ubuntu 24.04.3 LTS", "Linux Mint 22.2")


@dataclass(frozen=True)
class Supported:
    """A system, its Docker repository, and the revision of the packages there."""

    release: str
    uri: str
    suite: str


SUPPORTED = {
    "Debian 12": Supported(DEBIAN_12, "https://download.docker.com/linux/debian", "bookworm"),
    "Debian 13": Supported(DEBIAN_13, "https://download.docker.com/linux/debian", "trixie"),
    "Ubuntu 22.04": Supported(UBUNTU_22, "https://download.docker.com/linux/ubuntu", "jammy"),
    "Ubuntu 24.04": Supported(UBUNTU_24, "https://download.docker.com/linux/ubuntu", "noble"),
}

DOCKER_SOURCES = """# docker: written by Stoker
Types: deb
URIs: {uri}
Suites: {suite}
Components: stable
Architectures: amd64
Signed-By: /etc/apt/keyrings/docker.asc
"""

TOOLKIT_SOURCES = """# nvidia-container-toolkit: written by Stoker
Types: deb
URIs: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)
Suites: /
Architectures: amd64
Signed-By: /etc/apt/keyrings/nvidia-container-toolkit.asc
"""


def facts(release: str, gpus: str = "", status: int = 0) -> HostState:
    """What the probe prints on a bare machine of a distribution."""
    _, host = fleet_and_host("llm")
    rows = [smi_row(gpu, DRIVER) for gpu in cards(host)]
    lines = [
        f"{SECTION}os",
        *release.splitlines(),
        f"{SECTION}identity",
        f"x86_64 0 root {NOW}",
        f"{SECTION}packages",
        *([] if gpus else [f"{name}\t{DRIVER}-1\tii " for name in DRIVER_PACKAGES]),
        f"{SECTION}gpus",
        *([gpus] if gpus else rows),
        f"rc={status}",
    ]
    return parse(lines)


@pytest.mark.parametrize("system", SUPPORTED.values(), ids=SUPPORTED)
def test_repository_files(system: Supported) -> None:
    _, host = fleet_and_host("llm")
    state = facts(system.release)
    files = [repository.sources_file("amd64") for repository in sources.repositories(host, state)]
    assert files == [
        File("/etc/apt/sources.list.d/docker.sources", DOCKER_SOURCES.format(uri=system.uri, suite=system.suite)),
        File("/etc/apt/sources.list.d/nvidia-container-toolkit.sources", TOOLKIT_SOURCES),
    ]
    keys = [repository.key_url for repository in sources.repositories(host, state)]
    assert keys == [f"{system.uri}/gpg", "https://nvidia.github.io/libnvidia-container/gpgkey"]


@pytest.mark.parametrize("system", SUPPORTED.values(), ids=SUPPORTED)
def test_a_deploy_onto_it_is_not_refused(system: Supported) -> None:
    _, host = fleet_and_host("llm")
    assert findings(host, facts(system.release), NOW) == []


@pytest.mark.parametrize("system", SUPPORTED.values(), ids=SUPPORTED)
def test_the_packages_have_the_same_names_everywhere(system: Supported) -> None:
    _, host = fleet_and_host("llm")
    names = [package.name for package in docker.packages(host, facts(system.release))]
    assert names == ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]


def test_a_mirror_keeps_the_publishers_layout() -> None:
    def change(data: Data) -> None:
        data["all"]["mirrors"] |= {
            "docker": "http://mirror.example.org/docker-ce/linux",
            "container_toolkit": "http://mirror.example.org/libnvidia-container",
        }

    _, host = fleet_and_host("llm", change)
    docker_ce, toolkit = sources.repositories(host, facts(UBUNTU_24))
    assert docker_ce.uri == "http://mirror.example.org/docker-ce/linux/ubuntu"
    assert docker_ce.key_url == "http://mirror.example.org/docker-ce/linux/ubuntu/gpg"
    assert toolkit.uri == "http://mirror.example.org/libnvidia-container/stable/deb/$(ARCH)"
    assert toolkit.key_url == "http://mirror.example.org/libnvidia-container/gpgkey"


def test_with_the_distributions_docker_only_nvidias_repository_is_added() -> None:
    def change(data: Data) -> None:
        data["all"]["docker"] = {"source": "distribution"}

    _, host = fleet_and_host("llm", change)
    assert [repository.name for repository in sources.repositories(host, facts(UBUNTU_22))] == [
        "nvidia-container-toolkit"
    ]


@pytest.mark.parametrize(
    ("release", "name"),
    [
        (DEBIAN_11, "Debian GNU/Linux 11 (bullseye)"),
        (FEDORA, "Fedora Linux 42 (Server Edition)"),
        (MINT, "Linux Mint 22.2"),
        ("", "this system"),
    ],
    ids=["Debian 11", "Fedora", "Mint", "unknown"],
)
def test_other_systems_are_refused_with_a_sentence(release: str, name: str) -> None:
    _, host = fleet_and_host("llm")
    (refusal,) = findings(host, facts(release), NOW)
    assert refusal.reason == f"{name} is not supported"
    assert refusal.remedy == "use one of Debian 12, Debian 13, Ubuntu 22.04 (untested), Ubuntu 24.04 (untested)"

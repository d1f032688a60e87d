"""Package sources: the order in which each step can work, proxies, and what an earlier installation left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.fleet import Data
from support.states import bare, converged, file_state, fleet_and_host

from stoker.steps import sources
from stoker.steps.action import File

PROXY = "/etc/apt/apt.conf.d/80stoker-proxy"


def with_proxy(**proxy: object) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        data["all"]["proxy"] = proxy

    return change


def test_the_order_on_a_bare_host_behind_a_proxy() -> None:
    """Without the proxy nothing can be read, without certificates nothing over https, without keys no list."""
    _, host = fleet_and_host("llm", with_proxy(http="http://proxy.example.org:3128"))
    assert [action.description for action in sources.actions(host, bare(host))] == [
        f"write {PROXY}",
        "install ca-certificates",
        "fetch the key of docker from https://download.docker.com/linux/debian/gpg",
        "fetch the key of nvidia-container-toolkit from https://nvidia.github.io/libnvidia-container/gpgkey",
        "write /etc/apt/sources.list.d/docker.sources, /etc/apt/sources.list.d/nvidia-container-toolkit.sources and "
        "refresh the package lists",
    ]


@pytest.mark.parametrize(
    ("proxy", "text"),
    [
        (
            {"http": "http://proxy:3128", "no_proxy": ["mirror.lan"]},
            'Acquire::http::Proxy "http://proxy:3128";\n'
            'Acquire::http::Proxy::mirror.lan "DIRECT";\nAcquire::https::Proxy::mirror.lan "DIRECT";\n',
        ),
        (
            {"http": "http://proxy:3128", "https": "http://proxy:3129", "no_proxy": []},
            'Acquire::http::Proxy "http://proxy:3128";\nAcquire::https::Proxy "http://proxy:3129";\n',
        ),
    ],
)
def test_apts_proxy_settings(proxy: dict[str, object], text: str) -> None:
    _, host = fleet_and_host("llm", with_proxy(**proxy))
    assert sources.proxy_file(host) == File(PROXY, text)


def test_a_proxy_that_is_no_longer_described_is_taken_away() -> None:
    fleet, host = fleet_and_host("llm")
    state = converged(fleet, host)
    state = replace(state, files={**state.files, PROXY: file_state(File(PROXY, "x"))})
    (remove,) = sources.actions(host, state)
    assert (remove.description, remove.script) == (
        f"remove {PROXY}: no proxy is described any more",
        f"rm -f {PROXY}",
    )


def test_a_changed_proxy_does_not_touch_the_sources() -> None:
    old_fleet, old_host = fleet_and_host("llm")
    _, host = fleet_and_host("llm", with_proxy(https="http://proxy:3128"))
    assert [action.description for action in sources.actions(host, converged(old_fleet, old_host))] == [
        f"write {PROXY}"
    ]


@pytest.mark.parametrize("path", sources.LEFTOVERS)
def test_every_leftover_is_asked_for(path: str) -> None:
    assert path in sources.files()


def test_another_mirror_rewrites_its_source_and_asks_for_its_key() -> None:
    old_fleet, old_host = fleet_and_host("llm")

    def change(data: Data) -> None:
        data["all"]["mirrors"]["docker"] = "http://mirror.lan/docker"
        data["all"]["mirrors"]["docker_key"] = "0" * 40

    _, host = fleet_and_host("llm", change)
    assert [action.description for action in sources.actions(host, converged(old_fleet, old_host))] == [
        "fetch the key of docker from http://mirror.lan/docker/debian/gpg",
        "write /etc/apt/sources.list.d/docker.sources and refresh the package lists",
    ]

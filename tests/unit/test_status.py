"""`stoker status`: what a host's state is called, and the table and the JSON that show it."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console
from support.fleet import EMBEDDING, LLM, make_fleet

from stoker.facts.gpus import Gpu
from stoker.facts.state import Container, HostState
from stoker.ready.stamp import stamp_text
from stoker.render.gateway import config_identity
from stoker.status import HostStatus, judge, show, unknown
from stoker.steps.layout import READY
from stoker.steps.stack import backends

FLEET = make_fleet()
HOST = FLEET.host(EMBEDDING)
NAMES = ("ollama_bge_0", "ollama_bge_1", "bge_nginx")


def container(name: str, status: str = "running", restarts: int = 0) -> Container:
    return Container(name, f"id-{name}", "sha256:1", status, "2026-11-21T03:00:00Z", restarts, "", "bge-ha")


def identity() -> str:
    gateway = HOST.stacks[0].gateway
    assert gateway is not None
    return config_identity(gateway, backends(FLEET, gateway))


READY_STATE = HostState(
    os_name="Debian GNU/Linux 12 (bookworm)",
    driver="580.173.02",
    docker_version="28.5.2",
    gpus=[Gpu(index, f"GPU-{index}", "Tesla P40", 23040, "6.1", used_mib=1700) for index in (0, 1)],
    containers={name: container(name) for name in NAMES},
    contents={f"{READY}/{name}": stamp_text(f"id-{name}", "2026-11-21T03:00:00Z") + "\n" for name in NAMES[:2]},
    answers={"ollama_bge_0": "200", "ollama_bge_1": "200", "gateway-bge-ha": identity()},
)


def health(state: HostState) -> list[str]:
    return [entry.health for entry in judge(FLEET, HOST, state).entries]


def test_everything_is_ready() -> None:
    found = judge(FLEET, HOST, READY_STATE)
    assert [entry.health for entry in found.entries] == ["ready", "ready", "ready"]
    assert found.ready
    assert found.instances[0].gpu_memory_mib == ((1700, 23040),)
    assert found.gateways[0].url == "http://192.168.31.65:11436"


def test_a_bare_host_has_nothing() -> None:
    found = judge(FLEET, HOST, HostState(os_name="Debian"))
    assert [(entry.container, entry.health) for entry in found.entries] == [("absent", "down")] * 3
    assert found.docker == "not installed"
    assert not found.ready


def test_a_new_start_is_not_proven_by_the_answer_of_an_earlier_one() -> None:
    later = replace(READY_STATE.containers["ollama_bge_0"], started_at="2026-11-21T04:00:00Z")
    state = replace(READY_STATE, containers={**READY_STATE.containers, "ollama_bge_0": later})
    assert health(state) == ["unproven", "ready", "ready"]


def test_what_does_not_answer_is_silent() -> None:
    state = replace(READY_STATE, answers={"ollama_bge_0": "000", "ollama_bge_1": "200"})
    assert health(state) == ["silent", "ready", "silent"]


def test_a_stopped_container_is_down_whatever_was_proven_before() -> None:
    stopped = {name: container(name, "exited", 2) for name in NAMES}
    found = judge(FLEET, HOST, replace(READY_STATE, containers=stopped))
    assert [(entry.container, entry.health) for entry in found.entries] == [("exited, 2 restarts", "down")] * 3


def test_a_gateway_with_an_older_configuration_is_stale() -> None:
    state = replace(READY_STATE, answers={**READY_STATE.answers, "gateway-bge-ha": "0123456789ab"})
    assert health(state)[-1] == "stale"


def table(*hosts: HostStatus) -> str:
    console = Console(file=io.StringIO(), width=40)
    show(hosts, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_says_what_is_simulated_and_is_not_broken_into_lines() -> None:
    text = table(judge(FLEET, HOST, READY_STATE, simulated="GPUs and engines are simulated"))
    lines = text.splitlines()
    assert len(lines) == 6
    assert "GPUs and engines are simulated" in lines[1]
    assert "1.7 of 22.5 GiB" in lines[2]
    assert lines[-1] == "3 of 3 ready"


def test_a_host_that_cannot_be_asked_is_not_ready_and_says_why() -> None:
    lost = unknown(FLEET, FLEET.host(LLM), "no SSH connection within 5 s; [try] ssh")
    text = table(lost, judge(FLEET, HOST, READY_STATE))
    assert not lost.ready
    assert "no SSH connection within 5 s; [try] ssh" in text
    assert text.splitlines()[-1] == "3 of 9 ready"

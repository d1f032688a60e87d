"""`stoker wait`: whom it waits for, what it says, its exit status. Hosts are played; the description is the default one."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ready_fakes import Scene, ScriptedHost, inspect_json
from ready_logs import VLLM_MEMORY_NOT_FREE
from support.fleet import make_fleet
from support.states import converged

from stoker.description import Description
from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.operate import contact
from stoker.operate import wait_command as command
from stoker.smoke.ssh import AccessError

INVENTORY = Path("inventory.py")
LLM, EMBEDDING = "192.168.31.10", "192.168.31.65"
QWEN = "vllm_qwen_gpu2"
GOOD = (200, {"choices": [{"text": " Paris, which lies on the Seine"}]})


class Hosts:
    """Both hosts, converged. ``scenes`` of the instances that are waited for, by host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scenes: dict[str, list[list[Scene]]] = {}
        self.asked: list[str] = []
        self.unreachable: set[str] = set()
        self._fleet = make_fleet()
        self.described = Description(None, self._fleet, Cards(), list(self._fleet.hosts))
        monkeypatch.setattr(command, "read", lambda *_: self.described)
        self.states: dict[str, HostState] = {host.name: converged(self._fleet, host) for host in self._fleet.hosts}
        monkeypatch.setattr(command, "logins", lambda inventory: {host.name: host.name for host in self._fleet.hosts})
        monkeypatch.setattr(contact, "Shell", self._shell)
        monkeypatch.setattr(command, "as_keyboard_interrupt", lambda: None)
        monkeypatch.setattr(command, "parse", lambda lines: self.states[lines[0]])

    def unproven(self, host: str, *names: str) -> None:
        """These were started anew since they last answered."""
        state = self.states[host]
        anew = {name: replace(state.containers[name], started_at="2026-11-20T10:00:00.123456789Z") for name in names}
        self.states[host] = replace(state, containers={**state.containers, **anew})

    def _shell(self, name: Any) -> Any:
        hosts = self

        class Shell:
            def run(self, line: str, sudo: bool, seconds: float = 15) -> str:
                assert sudo
                if name in hosts.unreachable:
                    raise AccessError("no SSH connection: timed out", "try ssh")
                script = shlex.split(line)[2]
                if not script.startswith("B="):
                    hosts.asked.append(name)
                    return f"{name}\n"
                played = hosts._played.setdefault(name, ScriptedHost(hosts.scenes[name]))
                return str(played.run(script).stdout)

            def close(self) -> None: ...

        self._played: dict[str, ScriptedHost] = {}
        return Shell()


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    return Hosts(monkeypatch)


def test_nothing_is_left_to_wait_for(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.wait(INVENTORY) == 0
    assert capsys.readouterr().err == "Every instance has answered.\n"
    assert sorted(hosts.asked) == [LLM, EMBEDDING]


def test_what_was_started_anew_is_waited_for(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    hosts.unproven(LLM, QWEN)
    hosts.scenes[LLM] = [[Scene(0, inspect_json(QWEN)), Scene(5.0, inspect_json(QWEN), 200, answer=GOOD)]]
    assert command.wait(INVENTORY) == 0
    said = capsys.readouterr().err
    assert f"{LLM} {QWEN}: starting" in said
    assert "1 of 1 instances answer" in said


def test_a_failure_is_told_in_full_and_is_status_1(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    hosts.unproven(LLM, QWEN)
    dead = inspect_json(QWEN, status="exited", exit_code=1)
    hosts.scenes[LLM] = [[Scene(0, dead, log=VLLM_MEMORY_NOT_FREE)]]
    assert command.wait(INVENTORY, instances=[QWEN]) == 1
    said = capsys.readouterr().err
    for words in (f"not ready: {QWEN} on {LLM} (failed)", "cause", "remedy", f"stoker logs {QWEN}"):
        assert words in said
    assert hosts.asked == [LLM]  # the other host has no instance of this name


def test_a_host_that_cannot_be_reached_does_not_keep_the_others(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.unreachable.add(EMBEDDING)
    hosts.unproven(LLM, QWEN)
    hosts.scenes[LLM] = [[Scene(0, inspect_json(QWEN), 200, answer=GOOD)]]
    assert command.wait(INVENTORY) == 1
    said = capsys.readouterr().err
    assert f"{EMBEDDING}: no SSH connection: timed out; try ssh" in said
    assert "1 of 1 instances answer" in said


def test_an_unknown_name_is_no_start(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.wait(INVENTORY, instances=["vllm_qwen"]) == 3
    assert "No host has vllm_qwen; there are vllm_llama_gpu0_0, " in capsys.readouterr().err
    assert not hosts.asked


@pytest.mark.parametrize(
    ("names", "limit", "said"),
    [
        (["bge_nginx"], [], "bge_nginx: a gateway loads nothing"),
        ([QWEN], [EMBEDDING], f"{QWEN}: not on the hosts that --limit names"),
    ],
)
def test_what_could_not_be_waited_for_is_no_start(
    hosts: Hosts, names: list[str], limit: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if limit:
        hosts.described.hosts[:] = [host for host in hosts.described.hosts if host.name in limit]
    assert command.wait(INVENTORY, limit=limit, instances=names) == 3
    assert said in capsys.readouterr().err
    assert not hosts.asked


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gpu_error": "No devices were found", "gpus": []}, f"{LLM}: its cards are gone: No devices were found"),
        ({"gpus": []}, f"{LLM}: GPU 0, GPU 1, GPU 2 is not there"),
        ({"docker_error": "Cannot connect"}, f"{LLM}: Docker does not answer: Cannot connect"),
    ],
)
def test_a_host_whose_engines_cannot_come_up(
    hosts: Hosts, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.states[LLM] = replace(hosts.states[LLM], **change)
    assert command.wait(INVENTORY) == 1
    assert said in capsys.readouterr().err


def test_an_interrupt_says_how_to_go_on(
    hosts: Hosts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    hosts.unproven(LLM, QWEN)
    monkeypatch.setattr(command, "wait_ready", pressed)
    assert command.wait(INVENTORY) == 130
    assert "nothing was stopped. Go on watching: stoker wait" in capsys.readouterr().err

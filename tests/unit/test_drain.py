"""`stoker drain` and `stoker undrain`: which gateways, what is written on them, when it refuses and when it is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest
from gateway_hosts import FLEET, GATEWAYS, Hosts
from smoke_sshd import connect, ssh_server
from support.fleet import EMBEDDING, LLM

from stoker.operate.contact import Contact
from stoker.render.gateway import INSIDE_ADDRESS
from stoker.run import drain
from stoker.smoke.ssh import AccessError, Login
from stoker.spec.fleet import Host


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    monkeypatch.setattr(drain, "_POLL_SECONDS", 0.0)
    return Hosts(tmp_path)


def carried_out(hosts: Hosts, *names: str, back: bool = False, force: bool = False, limit: float = 5) -> int:
    return drain.carry_out(drain.tasks(FLEET, names), hosts.run, back=back, force=force, limit_seconds=limit)


def test_every_gateway_that_has_the_instance_is_told() -> None:
    tasks = drain.tasks(FLEET, ["vllm_llama_gpu0_0", "ollama_bge_1"])
    assert {task.host.name: task.names for task in tasks} == {
        LLM: ("vllm_llama_gpu0_0",), EMBEDDING: ("ollama_bge_1", "vllm_llama_gpu0_0"),
    }  # fmt: skip


def test_drained_and_returned(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert carried_out(hosts, "vllm_llama_gpu0_0") == drain.DONE
    assert carried_out(hosts, "vllm_llama_gpu0_1", "vllm_llama_gpu0_0") == drain.DONE
    for host in GATEWAYS:
        assert sorted(hosts.listed(host)) == ["vllm_llama_gpu0_0", "vllm_llama_gpu0_1"]
    assert carried_out(hosts, "vllm_llama_gpu0_0", back=True) == drain.DONE
    assert hosts.listed(LLM) == hosts.listed(EMBEDDING) == ["vllm_llama_gpu0_1"]
    assert carried_out(hosts, "vllm_llama_gpu0_1", back=True) == drain.DONE
    assert carried_out(hosts, "vllm_llama_gpu0_1", back=True) == drain.DONE, "twice is no error"
    assert hosts.listed(LLM) == []
    assert capsys.readouterr().out.splitlines()[-1] == "vllm_llama_gpu0_1: in use again."


def test_it_waits_for_what_runs(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    hosts.in_flight["ollama_bge_0"] = [3, 3, 1, 0]
    assert carried_out(hosts, "ollama_bge_0") == drain.DONE
    assert capsys.readouterr().out.splitlines() == [
        "bge_nginx on 192.168.31.65: ollama_bge_0 is drained, 3 requests still in flight",
        "bge_nginx on 192.168.31.65: ollama_bge_0 is drained, 1 request still in flight",
        "ollama_bge_0: drained, and nothing runs there.",
    ]


def test_it_does_not_wait_for_ever(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    hosts.in_flight["ollama_bge_0"] = [1]
    assert carried_out(hosts, "ollama_bge_0", limit=0.0) == drain.FAILED
    assert "Not within 0 s" in capsys.readouterr().err
    assert hosts.listed(EMBEDDING) == ["ollama_bge_0"], "and stays drained"


@pytest.mark.parametrize(
    ("names", "down", "why"),
    [
        (
            ["vllm_qwen_gpu2"],
            [],
            "vllm_nginx on 192.168.31.10: the pool qwen would have no member left (there is no other).",
        ),
        (["ollama_bge_0", "ollama_bge_1"], [], "the pool embed would have no member left (there is no other)."),
        (["ollama_bge_0"], ["ollama_bge_1"], "the pool embed would have no member left (ollama_bge_1 is down)."),
    ],
)
def test_no_pool_is_emptied(
    hosts: Hosts, names: list[str], down: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.down = set(down)
    assert carried_out(hosts, *names) == drain.NOT_STARTED
    assert why in capsys.readouterr().err
    assert hosts.listed(LLM) == hosts.listed(EMBEDDING) == []
    assert carried_out(hosts, *names, force=True) == drain.DONE
    assert sorted(hosts.listed(EMBEDDING)) == names


def test_one_that_the_gateway_has_not_tried_yet_is_no_member_to_go_on_with(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.proving = {"ollama_bge_1"}
    assert carried_out(hosts, "ollama_bge_0") == drain.NOT_STARTED
    assert "(ollama_bge_1 is proving)" in capsys.readouterr().err


def test_what_is_drained_already_counts(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert carried_out(hosts, "ollama_bge_0") == drain.DONE
    assert carried_out(hosts, "ollama_bge_1") == drain.NOT_STARTED
    assert "(ollama_bge_0 is drained)" in capsys.readouterr().err


def test_a_gateway_that_shows_nothing(hosts: Hosts) -> None:
    hosts.silent = True
    with pytest.raises(AccessError, match=r"bge_nginx on 192\.168\.31\.65 does not say"):
        carried_out(hosts, "ollama_bge_0")
    assert hosts.listed(EMBEDDING) == []


LOST = AccessError("the connection is closed", "see the host")


def failing(hosts: Hosts, fails: Callable[[Host, str, int], bool]) -> drain.Run:
    """The hosts, where commands fail by host, command, and how many came before."""
    came: list[str] = []

    def run(host: Host, command: str) -> str:
        came.append(command)
        if fails(host, command, len(came) - 1):
            raise LOST
        return hosts.run(host, command)

    return run


def attempted(run: drain.Run, *names: str, back: bool = False) -> int:
    return drain.attempt(drain.tasks(FLEET, names), run, back=back, force=False, limit_seconds=5)


def test_a_connection_that_is_lost_once_while_it_waits_ends_nothing(hosts: Hosts) -> None:
    hosts.in_flight["ollama_bge_0"] = [1, 1, 0]
    assert attempted(failing(hosts, lambda host, command, before: before == 3), "ollama_bge_0") == drain.DONE


def test_a_host_that_is_lost_while_it_waits_leaves_nothing_drained_without_a_word(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempted(failing(hosts, lambda host, command, before: before >= 2), "ollama_bge_0") == drain.FAILED
    assert hosts.listed(EMBEDDING) == ["ollama_bge_0"]
    assert capsys.readouterr().err.splitlines() == [
        "the connection is closed; see the host",
        "ollama_bge_0 stays drained at bge_nginx on 192.168.31.65; stoker undrain ollama_bge_0",
    ]


def test_of_a_list_whose_writing_failed_it_is_not_known_whether_it_counts(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    run = failing(hosts, lambda host, command, before: host.name == LLM and "flock" in command)
    assert attempted(run, "vllm_llama_gpu0_0") == drain.FAILED
    assert hosts.listed(EMBEDDING) == ["vllm_llama_gpu0_0"]
    assert capsys.readouterr().err.splitlines()[1:] == [
        "vllm_llama_gpu0_0 may be drained at vllm_nginx on 192.168.31.10; stoker undrain vllm_llama_gpu0_0",
        "vllm_llama_gpu0_0 stays drained at bge_nginx on 192.168.31.65; stoker undrain vllm_llama_gpu0_0",
    ]


@pytest.mark.parametrize("back", [False, True])
def test_a_host_that_cannot_be_asked_before_anything_is_written(
    hosts: Hosts, back: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attempted(failing(hosts, lambda *_: True), "ollama_bge_0", back=back) == drain.FAILED
    assert hosts.listed(EMBEDDING) == []
    assert capsys.readouterr().err == "the connection is closed; see the host\n"


def test_a_connection_that_is_lost_is_made_anew(tmp_path: Path) -> None:
    host = drain.tasks(FLEET, ["ollama_bge_0"])[0].host
    clients: list[paramiko.SSHClient] = []
    with ssh_server(tmp_path) as port:

        def made() -> paramiko.SSHClient:
            clients.append(connect(port))
            return clients[-1]

        contact = Contact({host.name: Login(made, ("ssh", "box"))})
        assert contact.run(host, "echo one") == "one\n"
        clients[0].close()
        with pytest.raises(AccessError):
            contact.run(host, "echo two")
        assert contact.run(host, "echo three") == "three\n"
        contact.close()
    assert len(clients) == 2


def test_the_gateway_is_asked_inside_its_container() -> None:
    asked = []

    def run(host: Host, command: str) -> str:
        asked.append(command)
        return '{"members": []}'

    drain.ask(drain.tasks(FLEET, ["ollama_bge_0"])[0], run)
    assert asked == [f"docker exec bge_nginx busybox wget -q -O - http://{INSIDE_ADDRESS}:11436/members"]

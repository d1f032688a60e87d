"""Draining a member and returning it; what the gateway knows of its members, and who may see it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gateway_fleet
import pytest
from gateway_members import Member
from gateway_process import RunningGateway, Start, running_gateway, until

CHAT = "/v1/chat/completions"
LLAMA = {"model": "llama3.1-8b"}
STREAM = {"model": "llama3.1-8b", "stream": True}


def llamas(members: list[Member]) -> list[Member]:
    return [member for member in members if member.model == "llama3.1-8b"]


@pytest.fixture
def members(all_members: list[Member]) -> list[Member]:
    for member in all_members:
        member.forget()
    return all_members


def drained(gateway: RunningGateway, name: str) -> bool:
    return bool(gateway.member(name)["drained"])


def answered_by(gateway: RunningGateway, requests: int) -> set[str]:
    replies = [gateway.ask(CHAT, LLAMA) for _ in range(requests)]
    assert [reply.status for reply in replies] == [200] * requests
    return {reply.json["member"] for reply in replies}


def test_a_drained_member_finishes_what_it_has_and_gets_nothing_new(start: Start, members: list[Member]) -> None:
    gateway = start(members)
    until(lambda: gateway.member("llama_0")["health"] == "up")
    gate = threading.Semaphore(0)
    for member in llamas(members):
        member.gate = gate
    with ThreadPoolExecutor(8) as clients:
        running = [clients.submit(gateway.ask, CHAT, STREAM) for _ in range(8)]
        until(lambda: [member.running for member in llamas(members)] == [2, 2, 2, 2])
        started = time.monotonic()
        gateway.drain("llama_0")
        until(lambda: drained(gateway, "llama_0"))
        assert time.monotonic() - started < 1
        assert gateway.member("llama_0")["in_flight"] == 2
        for member in llamas(members)[1:]:
            member.gate = None
        assert answered_by(gateway, 40) == {"llama_1", "llama_2", "llama_3"}
        gate.release(100)
        replies = [client.result() for client in running]
    assert [reply.status for reply in replies] == [200] * 8
    assert all(reply.body.endswith(b"data: [DONE]\n\n") for reply in replies)
    until(lambda: gateway.member("llama_0")["in_flight"] == 0)

    members[2].gate = None
    gateway.drain()
    until(lambda: not drained(gateway, "llama_0"))
    assert "llama_0" in answered_by(gateway, 40)


def test_a_reload_forgets_no_drain(start: Start, members: list[Member]) -> None:
    gateway = start(members)
    gateway.drain("llama_1", "a_member_of_nobody")
    until(lambda: drained(gateway, "llama_1"))
    for _ in range(3):
        gateway.process.send_signal(signal.SIGHUP)
        assert answered_by(gateway, 8) <= {"llama_0", "llama_2", "llama_3"}


def test_a_restart_forgets_no_drain(members: list[Member], tmp_path: Path) -> None:
    """From its first request on: the file is read before anybody is chosen."""
    with running_gateway(gateway_fleet.unified(), members, tmp_path / "etc") as gateway:
        gateway.drain("llama_0", "llama_1", "llama_2")
        until(lambda: drained(gateway, "llama_2"))
    for _ in range(3):
        with running_gateway(gateway_fleet.unified(), members, tmp_path / "etc") as gateway:
            assert answered_by(gateway, 4) == {"llama_3"}


def test_a_pool_that_is_drained_answers_at_once(start: Start, members: list[Member]) -> None:
    gateway = start(members)
    gateway.drain(*(member.name for member in llamas(members)))
    until(lambda: drained(gateway, "llama_3"))
    reply = gateway.ask(CHAT, LLAMA)
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "no_member_available", "5")
    assert reply.error["message"] == "Every member of llama (llama3.1-8b) is down or drained."
    assert gateway.ask("/ready").error["message"] == "No member answers in: llama (llama3.1-8b)."
    assert not any(member.received for member in llamas(members))
    assert gateway.log(CHAT)["member_status"] == "-"


def test_what_is_known_of_every_member(start: Start, members: list[Member]) -> None:
    gateway = start(members)
    until(lambda: all(one["health"] == "up" for one in gateway.inside("/members").json["members"]))
    found = gateway.inside("/members").json["members"]
    assert [(one["pool"], one["name"]) for one in found] == [
        ("embed", "ollama_0"), ("embed", "ollama_1"), ("llama", "llama_0"), ("llama", "llama_1"), ("llama", "llama_2"),
        ("llama", "llama_3"), ("qwen", "qwen"),
    ]  # fmt: skip
    assert {(one["drained"], one["left_out"], one["in_flight"]) for one in found} == {(False, False, 0)}


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost:1", "members"])
@pytest.mark.parametrize("path", ["/members", "/metrics", "/check/0"])
def test_clients_do_not_see_it_whatever_host_they_name(gateway: RunningGateway, path: str, host: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")

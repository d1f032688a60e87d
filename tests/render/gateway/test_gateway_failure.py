"""Members that fail: who gets the request next, how often, and what the client is told."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import gateway_fleet
import pytest
from gateway_members import Member, Members, Mode, running_members
from gateway_process import Start, until

CHAT = "/v1/chat/completions"
LLAMA = {"model": "llama3.1-8b"}
QWEN = {"model": "qwen2.5-14b"}


@pytest.fixture(scope="module")
def runner_and_members() -> Iterator[tuple[Members, list[Member]]]:
    members = gateway_fleet.members()
    with running_members(members) as runner:
        yield runner, members


@pytest.fixture
def members(runner_and_members: tuple[Members, list[Member]]) -> list[Member]:
    for member in runner_and_members[1]:
        member.forget()
    return runner_and_members[1]


@contextlib.contextmanager
def stopped(runner: Members, *members: Member) -> Iterator[None]:
    """Members that refuse connections, as while they load."""
    for member in members:
        runner.stop(member)
    try:
        yield
    finally:
        for member in members:
            runner.start(member)


def llamas(members: list[Member]) -> list[Member]:
    return [member for member in members if member.model == "llama3.1-8b"]


def requests_at(members: list[Member]) -> int:
    return sum(len(member.received) for member in members)


@pytest.mark.parametrize(("mode", "status"), [("busy", "503"), ("bad_gateway", "502"), ("reset", "502")])
def test_a_failing_member_costs_no_client_an_error(
    start: Start, members: list[Member], mode: Mode, status: str
) -> None:
    llamas(members)[0].mode = mode
    gateway = start(members)
    replies = [gateway.ask(CHAT, LLAMA) for _ in range(8)]
    assert [reply.status for reply in replies] == [200] * 8
    assert 1 <= len(llamas(members)[0].received) <= 2, "left out after two failures"
    # The log names each member that was tried; nginx writes it after the answer.
    tries = until(
        lambda: [line for line in gateway.output().splitlines() if f'"member_status":"{status}, 200"' in line]
    )
    assert f'"member":"{llamas(members)[0].name}, ' in tries[0]


def test_a_member_that_comes_back_is_used_again(
    start: Start, runner_and_members: tuple[Members, list[Member]], members: list[Member]
) -> None:
    first = llamas(members)[0]
    gateway = start(members)
    with stopped(runner_and_members[0], first):
        assert [gateway.ask(CHAT, LLAMA).status for _ in range(8)] == [200] * 8
    assert until(lambda: gateway.ask(CHAT, LLAMA).status == 200 and first.received)


def test_an_engines_own_error_is_not_retried(start: Start, members: list[Member]) -> None:
    for member in llamas(members):
        member.mode = "error"
    assert start(members).ask(CHAT, LLAMA).status == 500
    assert requests_at(llamas(members)) == 1


def test_at_most_three_members_are_tried(start: Start, members: list[Member]) -> None:
    for member in llamas(members):
        member.mode = "reset"
    reply = start(members).ask(CHAT, LLAMA)
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "no_member_available", "5")
    assert "llama (llama3.1-8b)" in reply.error["message"]
    assert requests_at(llamas(members)) == 3


def test_the_only_member_is_tried_once(start: Start, members: list[Member]) -> None:
    members[-1].mode = "reset"
    assert start(members).ask(CHAT, QWEN).status == 503
    assert requests_at(members[-1:]) == 1


def test_an_overloaded_engines_answer_passes_when_all_are_busy(start: Start, members: list[Member]) -> None:
    for member in members[:2]:
        member.mode = "busy"
    reply = start(members).ask("/v1/embeddings", {"model": "bge-m3", "input": "text"})
    assert reply.status == 503
    assert "is busy" in reply.json["error"]["message"]
    assert requests_at(members[:2]) == 2


def test_a_request_that_hangs_runs_on_one_member(start: Start, members: list[Member]) -> None:
    for member in llamas(members):
        member.mode = "silent"
    reply = start(members, read_seconds=1).ask(CHAT, LLAMA)
    assert (reply.status, reply.error["code"]) == (504, "member_timeout")
    assert "llama (llama3.1-8b)" in reply.error["message"]
    assert requests_at(llamas(members)) == 1


def test_no_member_at_all(
    start: Start, runner_and_members: tuple[Members, list[Member]], members: list[Member]
) -> None:
    gateway = start(members)
    with stopped(runner_and_members[0], *llamas(members), members[-1]):
        for body in (LLAMA, QWEN, LLAMA):
            reply = gateway.ask(CHAT, body)
            assert (reply.status, reply.error["code"]) == (503, "no_member_available")
            assert reply.headers["retry-after"] == "5"
        assert gateway.ask("/llama/v1/models").status == 503
        assert gateway.ask("/v1/embeddings", {"input": "text"}).status == 200, "other pools go on"
        ready = gateway.ask("/ready")
        assert (ready.status, ready.headers["retry-after"]) == (503, "5")
        assert ready.error["message"] == "No member answers in: llama (llama3.1-8b), qwen (qwen2.5-14b)."
        assert [entry["id"] for entry in gateway.ask("/v1/models").json["data"]] == ["bge-m3"]
        assert gateway.ask("/health").status == 200
    assert until(lambda: gateway.ask("/ready").status == 200)


def test_no_models_when_nothing_answers(
    start: Start, runner_and_members: tuple[Members, list[Member]], members: list[Member]
) -> None:
    gateway = start(members)
    with stopped(runner_and_members[0], *members):
        reply = gateway.ask("/v1/models")
        assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "no_member_available", "5")


@contextlib.contextmanager
def dead_host() -> Iterator[int]:
    """A port whose connection attempts get no answer: its queue is full, so the kernel drops what comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_dead_host_costs_the_connect_time_only(start: Start, members: list[Member]) -> None:
    with dead_host() as port:
        dead = Member("llama_dead", "llama3.1-8b", port=port)
        gateway = start([dead, *members], connect_seconds=1)
        started = time.monotonic()
        assert [gateway.ask(CHAT, LLAMA).status for _ in range(5)] == [200] * 5
        assert time.monotonic() - started < 4, "two attempts of 1 s, then it is left out"


def test_a_dead_host_alone_is_no_member(start: Start, members: list[Member]) -> None:
    with dead_host() as port:
        gateway = start([*members[:-1], Member("qwen", "qwen2.5-14b", port=port)], connect_seconds=1)
        reply = gateway.ask(CHAT, QWEN)
        assert (reply.status, reply.error["code"]) == (503, "no_member_available")
        assert "can be reached" in reply.error["message"]

"""Members that fail: who gets the request next, how often, and what the client is told."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
    replies = [gateway.ask(CHAT, LLAMA) for _ in range(40)]  # equals are chosen at random
    assert [reply.status for reply in replies] == [200] * 40
    assert 1 <= len(llamas(members)[0].received) <= 2, "left out after two failures"
    # The log names each member that was tried; nginx writes it after the answer.
    tries = until(
        lambda: [line for line in gateway.output().splitlines() if f'"member_status":"{status}, 200"' in line]
    )
    assert f'"member":"{llamas(members)[0].name}, ' in tries[0]


def test_a_member_that_is_down_gets_no_request(
    start: Start, runner_and_members: tuple[Members, list[Member]], members: list[Member]
) -> None:
    """Nothing of it is seen by clients, and what they ask does not wait for it: still loading, or its process has died."""
    first = llamas(members)[0]
    gateway = start(members)
    with stopped(runner_and_members[0], first):
        until(lambda: gateway.member(first.name)["health"] == "down")
        assert [gateway.ask(CHAT, LLAMA).status for _ in range(40)] == [200] * 40
        tried = {name for entry in gateway.entries(CHAT, 40) for name in entry["member"].split(", ")}
    assert tried == {member.name for member in llamas(members)[1:]}
    until(lambda: gateway.member(first.name)["health"] == "up")


def test_a_member_whose_engine_is_dead_gets_no_request(start: Start, members: list[Member]) -> None:
    first = llamas(members)[0]
    first.health = 503
    gateway = start(members)
    until(lambda: gateway.member(first.name)["health"] == "down")
    assert [gateway.ask(CHAT, LLAMA).status for _ in range(16)] == [200] * 16
    assert not first.received
    assert until(lambda: f"member {first.name} is down" in gateway.output())


def test_a_member_that_is_silent_gets_no_request_while_there_are_others(start: Start, members: list[Member]) -> None:
    """It may be busy and not dead: the only member of its pool still gets what comes."""
    first, alone = llamas(members)[0], members[-1]
    first.mute = alone.mute = 100
    gateway = start(members)
    for member in (first, alone):
        until(lambda name=member.name: gateway.member(name)["left_out"])
    assert [gateway.ask(CHAT, LLAMA).status for _ in range(16)] == [200] * 16
    assert not first.received
    assert gateway.ask(CHAT, LLAMA | {"model": alone.model}).status == 200
    assert gateway.member(alone.name)["health"] != "down"


def test_one_silence_is_forgiven(start: Start, members: list[Member]) -> None:
    """An engine that is busy with a long prompt may be late with its health."""
    first = llamas(members)[0]
    gateway = start(members)
    until(lambda: gateway.member(first.name)["health"] == "up")
    since = gateway.member(first.name)["since"]
    first.mute = 1
    until(lambda: first.mute == 0)
    asked = first.checks
    until(lambda: first.checks == asked + 4)  # the silence is over after the second of these
    assert gateway.member(first.name)["since"] == since
    assert f"member {first.name} is down" not in gateway.output()
    assert not first.proofs


def test_a_member_that_dies_of_its_first_request(
    start: Start, runner_and_members: tuple[Members, list[Member]], members: list[Member]
) -> None:
    """It is well until it is asked. The client gets another member's answer, and nobody else is sent there."""
    runner, first = runner_and_members[0], llamas(members)[0]
    gateway = start(members)
    gateway.drain(*(member.name for member in llamas(members)[1:]))
    until(lambda: gateway.member(llamas(members)[1].name)["drained"])
    first.gate = threading.Semaphore(0)
    with ThreadPoolExecutor(1) as client:
        reply = client.submit(gateway.ask, CHAT, LLAMA)
        until(lambda: first.running)
        gateway.drain()
        until(lambda: not gateway.member(llamas(members)[1].name)["drained"])
        first.mode = "reset"
        with stopped(runner, first):
            first.gate.release()
            until(lambda: gateway.member(first.name)["health"] == "down")
            assert [gateway.ask(CHAT, LLAMA).status for _ in range(8)] == [200] * 8
            assert len(first.received) == 1
    assert reply.result().status == 200
    assert gateway.member(first.name)["in_flight"] == 0


def test_a_kept_connection_that_the_engine_has_closed_costs_no_client_an_error(
    start: Start, members: list[Member]
) -> None:
    """vLLM v0.19.1 closes a connection unannounced after some of its own errors."""
    qwen = members[-1]
    gateway = start(members)
    assert gateway.ask(CHAT, QWEN).status == 200
    qwen.mode = "reset_reused"
    assert [gateway.ask(CHAT, QWEN).status for _ in range(8)] == [200] * 8
    assert gateway.member(qwen.name)["health"] in ("up", "unknown")
    assert {entry["member"] for entry in gateway.entries(CHAT, 9)} == {"qwen"}


def test_a_member_that_comes_back_is_used_again(
    start: Start, runner_and_members: tuple[Members, list[Member]], members: list[Member]
) -> None:
    first = llamas(members)[0]
    gateway = start(members)
    with stopped(runner_and_members[0], first):
        assert [gateway.ask(CHAT, LLAMA).status for _ in range(8)] == [200] * 8
    assert until(lambda: gateway.ask(CHAT, LLAMA).status == 200 and first.received)


@pytest.mark.parametrize("mode", ["error", "reset"])
def test_a_member_that_was_gone_gets_no_client_before_it_has_computed(
    start: Start, runner_and_members: tuple[Members, list[Member]], members: list[Member], mode: Mode
) -> None:
    """It is healthy after its start, and fails at its first request, which is the gateway's."""
    first = llamas(members)[0]
    gateway = start(members)
    with stopped(runner_and_members[0], first):
        until(lambda: gateway.member(first.name)["health"] == "down")
        first.mode = mode
    until(lambda: len(first.proofs) == 2)
    until(lambda: gateway.member(first.name)["health"] == "proving")
    until(
        lambda: gateway.member(first.name)["health"] == "down"
    )  # the proof failed, and is asked again after a good check
    assert [gateway.ask(CHAT, LLAMA).status for _ in range(16)] == [200] * 16
    assert not first.received
    first.mode = "answer"
    until(lambda: gateway.member(first.name)["health"] == "up")
    assert until(lambda: gateway.ask(CHAT, LLAMA).status == 200 and first.received)


def test_a_member_is_asked_for_one_proof_at_a_time_whatever_it_takes(
    start: Start, runner_and_members: tuple[Members, list[Member]], members: list[Member]
) -> None:
    """Ollama loads its model for it: minutes. Nobody else waits for that."""
    ollama, first = members[0], llamas(members)[0]
    gateway = start(members)
    with stopped(runner_and_members[0], ollama, first):
        for member in (ollama, first):
            until(lambda name=member.name: gateway.member(name)["health"] == "down")
        ollama.gate = threading.Semaphore(0)
    until(lambda: gateway.member(first.name)["health"] == "up")
    asked = ollama.checks
    until(lambda: ollama.checks >= asked + 3)
    assert (len(ollama.proofs), len(first.proofs)) == (1, 1)
    assert gateway.member(ollama.name)["health"] == "proving"
    ollama.gate.release()
    until(lambda: gateway.member(ollama.name)["health"] == "up")
    for member, path in ((ollama, "/v1/embeddings"), (first, "/v1/completions")):
        assert (member.proofs[0].method, member.proofs[0].path) == ("POST", path)
        assert json.loads(member.proofs[0].body)["model"] == member.model


def test_an_engines_own_error_is_not_retried(start: Start, members: list[Member]) -> None:
    for member in llamas(members):
        member.mode = "error"
    assert start(members).ask(CHAT, LLAMA).status == 500
    assert requests_at(llamas(members)) == 1


def test_at_most_three_members_are_tried(start: Start, members: list[Member]) -> None:
    for member in llamas(members):
        member.mode = "reset"
    gateway = start(members)
    reply = gateway.ask(CHAT, LLAMA)
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "no_member_available", "5")
    assert "llama (llama3.1-8b)" in reply.error["message"]
    assert requests_at(llamas(members)) == 3
    entry = gateway.log(CHAT)
    assert entry["member_status"] == "502, 502, 502"
    assert set(entry["member"].split(", ")) == {member.name for member in llamas(members) if member.received}


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
        all_models = [entry["id"] for entry in gateway.ask("/v1/models?all=true").json["data"]]
        assert all_models == ["bge-m3", "llama3.1-8b", "qwen2.5-14b"]
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


def test_a_dead_host_costs_at_most_one_connect_time(start: Start, members: list[Member]) -> None:
    with dead_host() as port:
        dead = Member("llama_dead", "llama3.1-8b", port=port)
        gateway = start([dead, *members], connect_seconds=1)
        started = time.monotonic()
        assert [gateway.ask(CHAT, LLAMA).status for _ in range(16)] == [200] * 16
        assert time.monotonic() - started < 1.8, "one attempt of 1 s, then it is down"


def test_a_dead_host_that_is_known_costs_nothing(start: Start, members: list[Member]) -> None:
    with dead_host() as port:
        dead = Member("llama_dead", "llama3.1-8b", port=port)
        gateway = start([dead, *members])
        until(lambda: gateway.member(dead.name)["health"] == "down")
        started = time.monotonic()
        assert [gateway.ask(CHAT, LLAMA).status for _ in range(16)] == [200] * 16
        assert time.monotonic() - started < 1, "a connect time is 2 s"


def test_no_other_member_is_tried_when_the_time_is_over(start: Start, members: list[Member]) -> None:
    """Ten seconds, or an engine's longest silence where that is less."""
    with dead_host() as port:
        dead = [Member(f"llama_dead_{number}", "llama3.1-8b", port=port) for number in range(3)]
        gateway = start([*members[:2], *dead, members[-1]], connect_seconds=2, read_seconds=1)
        assert gateway.ask(CHAT, LLAMA).status == 503
        assert gateway.log(CHAT)["member_status"] == "504"


def test_a_dead_host_alone_is_no_member(start: Start, members: list[Member]) -> None:
    with dead_host() as port:
        gateway = start([*members[:-1], Member("qwen", "qwen2.5-14b", port=port)], connect_seconds=1)
        reply = gateway.ask(CHAT, QWEN)
        assert (reply.status, reply.error["code"]) == (503, "no_member_available")
        assert "can be reached" in reply.error["message"]

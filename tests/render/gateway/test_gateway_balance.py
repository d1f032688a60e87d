"""Requests are spread evenly over a pool, counted over all of nginx's workers, and a reload loses none."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gateway_fleet
import pytest
from gateway_members import Member
from gateway_process import RunningGateway, Start, backends_of, running_gateway, until

from stoker.render.gateway import render_gateway

CHAT = "/v1/chat/completions"
LLAMA = {"model": "llama3.1-8b"}
QWEN = {"model": "qwen2.5-14b"}
STREAM = {"model": "llama3.1-8b", "stream": True}
WORKERS = 4


def workers(gateway: RunningGateway) -> set[int]:
    """Process ids of nginx's workers that take requests; not of those that leave after a reload."""
    found = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    titles = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in found if Path(f"/proc/{pid}").exists()}
    return {pid for pid, title in titles.items() if "nginx: worker process" in title and "shutting down" not in title}


def counted(gateway: RunningGateway) -> int:
    """Requests in flight on all members, as the gateway counts them."""
    return sum(one["in_flight"] for one in gateway.inside("/members").json["members"])


def running_at_once(gateway: RunningGateway, members: list[Member], count: int) -> list[int]:
    """So many chats at once, all of which wait in their members: how many each of the four has. Then all are answered."""
    llamas = [member for member in members if member.model == "llama3.1-8b"]
    gate = threading.Semaphore(0)
    for member in llamas:
        member.gate = gate
    with ThreadPoolExecutor(count) as clients:
        replies = [clients.submit(gateway.ask, CHAT, LLAMA) for _ in range(count)]
        until(lambda: sum(member.running for member in llamas) == count)
        running = [member.running for member in llamas]
        gate.release(count)
        assert [reply.result().status for reply in replies] == [200] * count
    return running


def test_concurrent_requests_are_spread_evenly(gateway: RunningGateway, all_members: list[Member]) -> None:
    """Twelve at once over four members: three each, whichever worker took them: what runs is counted for all of them."""
    assert running_at_once(gateway, all_members, 12) == [3, 3, 3, 3]


def test_ten_at_once_take_as_long_as_three(gateway: RunningGateway, all_members: list[Member]) -> None:
    """Ideal for ten equal requests on four members: 10 / 3 times as fast as one after the other."""
    longest = max(running_at_once(gateway, all_members, 10))
    assert 10 / longest >= 0.9 * 10 / 3


def test_all_members_of_every_pool_are_used(gateway: RunningGateway, all_members: list[Member]) -> None:
    for _ in range(64):
        gateway.ask(CHAT, LLAMA)
        gateway.ask("/v1/embeddings", {"model": "bge-m3", "input": "text"})
        gateway.ask("/qwen" + CHAT, {})
    assert all(member.received for member in all_members)


def test_streams_that_run_count_after_a_reload(start: Start, all_members: list[Member]) -> None:
    """Old workers keep what they began, and new ones know of it: nobody gets a third while another has one."""
    gateway = start(all_members)
    llamas = [member for member in all_members if member.model == "llama3.1-8b"]
    gate = threading.Semaphore(0)
    for member in llamas:
        member.forget()
        member.gate = gate
    with ThreadPoolExecutor(8) as clients:
        first = [clients.submit(gateway.ask, CHAT, STREAM) for _ in range(6)]
        until(lambda: sum(member.running for member in llamas) == 6)
        old = workers(gateway)
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: len(workers(gateway) - old) == WORKERS)
        second = [clients.submit(gateway.ask, CHAT, STREAM) for _ in range(2)]
        until(lambda: sum(member.running for member in llamas) == 8)
        running = [member.running for member in llamas]
        gate.release(100)
        replies = [reply.result() for reply in first + second]
    assert running == [2, 2, 2, 2]
    assert [reply.status for reply in replies] == [200] * 8
    assert all(reply.body.endswith(b"data: [DONE]\n\n") for reply in replies), "none was cut off"
    until(lambda: counted(gateway) == 0)


def test_a_worker_that_is_killed_takes_its_counts_with_it(start: Start, all_members: list[Member]) -> None:
    """Its requests are lost; what the others run still counts."""
    gateway = start(all_members)
    llamas = [member for member in all_members if member.model == "llama3.1-8b"]
    gate = threading.Semaphore(0)
    for member in llamas:
        member.forget()
        member.gate = gate
    connections = [gateway.open(CHAT, STREAM) for _ in range(16)]
    until(lambda: counted(gateway) == 16)
    first = min(workers(gateway))
    os.kill(first, signal.SIGKILL)
    until(lambda: first not in workers(gateway) and len(workers(gateway)) == WORKERS)
    until(lambda: counted(gateway) == sum(member.running for member in llamas))
    for pid in workers(gateway):
        os.kill(pid, signal.SIGKILL)
    until(lambda: sum(member.running for member in llamas) == 0)
    until(lambda: counted(gateway) == 0)
    for connection in connections:
        connection.close()
    gate.release(100)
    assert gateway.ask(CHAT, STREAM).status == 200


@pytest.mark.parametrize("how", ["leaves", "HEAD", "is refused", "is too large", "breaks off"])
def test_every_request_ends_once(start: Start, all_members: list[Member], how: str) -> None:
    """However a request ends, nothing stays counted and nothing is taken off twice."""
    gateway = start(all_members)
    qwen = all_members[-1]
    qwen.forget()
    for _ in range(3):
        if how == "leaves":
            qwen.gate = threading.Semaphore(0)
            with gateway.open(CHAT, QWEN):
                until(lambda: gateway.member("qwen")["in_flight"] == 1)
            qwen.gate = None
        elif how == "HEAD":
            assert gateway.ask("/qwen/v1/models", method="HEAD").status == 200
        elif how == "is refused":
            assert gateway.ask(CHAT, {"model": "nobody"}).status == 404
        elif how == "is too large":
            assert gateway.ask(CHAT, {**QWEN, "messages": "x" * (33 * 2**20)}).status == 413
        else:
            qwen.mode = "reset"
            assert gateway.ask(CHAT, QWEN).status == 503
        until(lambda: counted(gateway) == 0)
    qwen.forget()
    qwen.gate = threading.Semaphore(0)
    with ThreadPoolExecutor(2) as clients:
        replies = [clients.submit(gateway.ask, CHAT, QWEN) for _ in range(2)]
        until(lambda: qwen.running == 2)
        assert gateway.member("qwen")["in_flight"] == 2
        qwen.gate.release(2)
        assert [reply.result().status for reply in replies] == [200] * 2
    until(lambda: counted(gateway) == 0)


def test_reload_takes_the_new_configuration_and_keeps_running_requests(start: Start, all_members: list[Member]) -> None:
    gateway = start(all_members)
    qwen = all_members[-1]
    qwen.forget()
    qwen.gate = threading.Semaphore(0)
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(gateway.ask, CHAT, {"model": "qwen2.5-14b"})
        until(lambda: qwen.running)
        before = gateway.identity
        changed = gateway_fleet.unified().model_copy(
            update={"port": gateway.port, "pools": gateway_fleet.unified().pools[:2]}
        )
        for name, text in render_gateway(changed, backends_of(changed, all_members)).items():
            (gateway.log_file.with_suffix("") / name).write_text(text)
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: gateway.ask("/health").headers["x-stoker-config"] != before)
        until(lambda: gateway.ask("/qwen/v1/models").status == 404)
        qwen.gate.release()
        assert running.result().status == 200


def conversation(number: int, turns: int = 1) -> dict[str, object]:
    """A person's question of its own below instructions that all share, and some of what came after it."""
    messages = [
        {"role": "system", "content": "You extract entities. " * 100},
        {"role": "user", "content": f"{number}: hello"},
    ]
    later = [{"role": role, "content": "and then?"} for _ in range(turns - 1) for role in ("assistant", "user")]
    return {"model": "llama3.1-8b", "messages": messages + later}


@pytest.fixture
def with_affinity(all_members: list[Member], tmp_path: Path) -> Iterator[RunningGateway]:
    for member in all_members:
        member.forget()
    unified = gateway_fleet.unified()
    pools = tuple(
        pool.model_copy(update={"affinity": "prefix"}) if pool.name == "llama" else pool for pool in unified.pools
    )
    with running_gateway(unified.model_copy(update={"pools": pools}), all_members, tmp_path / "etc") as gateway:
        yield gateway


def test_a_conversation_stays_with_its_member(with_affinity: RunningGateway) -> None:
    def member(number: int, turns: int) -> str:
        return str(with_affinity.ask(CHAT, conversation(number, turns)).json["member"])

    first = [member(number, 1) for number in range(24)]
    assert set(first) == {"llama_0", "llama_1", "llama_2", "llama_3"}
    assert [member(number, 5) for number in range(24)] == first
    with_affinity.drain(first[0])
    until(lambda: with_affinity.member(first[0])["drained"])
    others = [(was, member(number, 7)) for number, was in enumerate(first)]
    assert all(now == was for was, now in others if was != first[0]), "the others keep theirs"
    assert all(now != was for was, now in others if was == first[0])


def test_a_conversation_leaves_a_member_that_has_too_much_to_do(
    with_affinity: RunningGateway, all_members: list[Member]
) -> None:
    """Sixteen at once with one beginning: its member gets few more than the mean."""
    llamas = [member for member in all_members if member.model == "llama3.1-8b"]
    gate = threading.Semaphore(0)
    for member in llamas:
        member.gate = gate
    with ThreadPoolExecutor(16) as clients:
        replies = [clients.submit(with_affinity.ask, CHAT, conversation(0)) for _ in range(16)]
        until(lambda: sum(member.running for member in llamas) == 16)
        running = sorted(member.running for member in llamas)
        gate.release(16)
        assert [reply.result().status for reply in replies] == [200] * 16
    assert 4 < running[-1] <= 16 / 4 + 5


@pytest.mark.parametrize(
    "body",
    [
        {"messages": None}, {"messages": "text"}, {"messages": [None, 5, "x", []]}, {"messages": []}, {"prompt": 5},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, {"prompt": ["a", "b"]}, {},
        {"messages": [{"role": "user", "content": None}]}, {"messages": {"find": 5}},
    ],
)  # fmt: skip
def test_strange_conversations_have_a_member_too(with_affinity: RunningGateway, body: dict[str, object]) -> None:
    assert with_affinity.ask(CHAT, {**body, "model": "llama3.1-8b"}).status == 200

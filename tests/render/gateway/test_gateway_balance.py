"""Requests are spread evenly over a pool, counted over all of nginx's workers, and a reload loses none."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import gateway_fleet
from gateway_members import Member
from gateway_process import RunningGateway, Start, backends_of, until

from stoker.render.gateway import render_gateway

CHAT = "/v1/chat/completions"
LLAMA = {"model": "llama3.1-8b"}
WORKERS = 4


def test_concurrent_requests_are_spread_evenly(gateway: RunningGateway, all_members: list[Member]) -> None:
    """Twelve at once over four members: three each, whichever worker took them (without a zone they pile up)."""
    llamas = [member for member in all_members if member.model == "llama3.1-8b"]
    gate = threading.Semaphore(0)
    for member in llamas:
        member.gate = gate
    with ThreadPoolExecutor(12) as clients:
        replies = [clients.submit(gateway.ask, CHAT, LLAMA) for _ in range(12)]
        until(lambda: sum(member.running for member in llamas) == 12)
        running = [member.running for member in llamas]
        gate.release(12)
        assert [reply.result().status for reply in replies] == [200] * 12
    assert running == [3, 3, 3, 3]


def test_all_members_of_every_pool_are_used(gateway: RunningGateway, all_members: list[Member]) -> None:
    for _ in range(8 * WORKERS):
        gateway.ask(CHAT, LLAMA)
        gateway.ask("/v1/embeddings", {"model": "bge-m3", "input": "text"})
        gateway.ask("/qwen" + CHAT, {})
    assert all(member.received for member in all_members)


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

"""What the gateway counts, in the text format of Prometheus."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gateway_fleet
import httpx
import pytest
from gateway_members import Member
from gateway_process import RunningGateway, Start, running_gateway, until
from prometheus_client.parser import text_string_to_metric_families

CHAT = "/v1/chat/completions"
LLAMA = {"model": "llama3.1-8b"}
QWEN = {"model": "qwen2.5-14b"}


@pytest.fixture
def members(all_members: list[Member]) -> list[Member]:
    for member in all_members:
        member.forget()
    return all_members


def metrics(gateway: RunningGateway) -> dict[str, float]:
    """``name{label="value"}`` with sorted labels -> value, without the common beginning of the names."""
    found = {}
    for family in text_string_to_metric_families(gateway.inside("/metrics").body.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name.removeprefix('stoker_gateway_')}[{labels}]"
            assert key not in found, "a series twice"
            found[key] = sample.value
    return found


def test_requests_times_and_bytes(start: Start, members: list[Member]) -> None:
    gateway = start(members)
    replies = [gateway.ask(CHAT, QWEN) for _ in range(3)]
    members[-1].mode = "error"
    gateway.ask(CHAT, QWEN)
    entries = gateway.entries(CHAT, 4)
    found = metrics(gateway)
    assert found["requests_total[member=qwen,pool=qwen,status=2xx]"] == 3
    assert found["requests_total[member=qwen,pool=qwen,status=5xx]"] == 1
    assert found["requests_total[member=llama_0,pool=llama,status=2xx]"] == 0
    assert found["received_bytes_total[member=qwen,pool=qwen]"] == sum(int(entry["bytes_in"]) for entry in entries)
    assert found["sent_bytes_total[member=qwen,pool=qwen]"] == sum(int(entry["bytes_out"]) for entry in entries)
    assert found["sent_bytes_total[member=qwen,pool=qwen]"] > sum(len(reply.body) for reply in replies)
    for name, field in (("duration_seconds", "total_s"), ("first_byte_seconds", "first_byte_s")):
        assert found[f"{name}_count[member=qwen,pool=qwen]"] == 4
        assert found[f"{name}_bucket[le=+Inf,member=qwen,pool=qwen]"] == 4
        assert found[f"{name}_sum[member=qwen,pool=qwen]"] == pytest.approx(sum(float(one[field]) for one in entries))


def test_buckets_count_what_is_below_their_bound(start: Start, members: list[Member]) -> None:
    gateway = start(members)
    gate = members[-1].gate = threading.Semaphore(0)
    with ThreadPoolExecutor(1) as client:
        reply = client.submit(gateway.ask, CHAT, QWEN)
        until(lambda: members[-1].running)
        threading.Timer(0.15, gate.release).start()
        assert reply.result().status == 200
    took = float(gateway.log(CHAT)["total_s"])
    found = metrics(gateway)
    bounds = {0.1: 0, 0.25: 0, 0.5: 0, 1.0: 0, 600.0: 0} | {
        bound: 1 for bound in (0.1, 0.25, 0.5, 1.0, 600.0) if bound >= took
    }
    assert took >= 0.15
    assert {bound: found[f"duration_seconds_bucket[le={bound:g},member=qwen,pool=qwen]"] for bound in bounds} == bounds


def test_members_and_what_runs_on_them(start: Start, members: list[Member]) -> None:
    gateway = start(members)
    members[2].health = 503
    gateway.drain("llama_1")
    until(lambda: gateway.member("llama_0")["health"] == "down")
    until(lambda: gateway.member("llama_1")["drained"])
    gate = members[-1].gate = threading.Semaphore(0)
    with ThreadPoolExecutor(3) as clients:
        running = [clients.submit(gateway.ask, CHAT, QWEN) for _ in range(3)]
        until(lambda: members[-1].running == 3)
        found = metrics(gateway)
        gate.release(3)
        assert [one.result().status for one in running] == [200] * 3
    assert found["in_flight[member=qwen,pool=qwen]"] == 3
    assert (found["member_up[member=llama_0,pool=llama]"], found["member_up[member=llama_1,pool=llama]"]) == (0, 1)
    assert (found["member_drained[member=llama_0,pool=llama]"], found["member_drained[member=llama_1,pool=llama]"]) == (
        0,
        1,
    )
    until(lambda: metrics(gateway)["in_flight[member=qwen,pool=qwen]"] == 0)


def test_failures_and_retries(start: Start, members: list[Member]) -> None:
    gateway = start(members)
    for member in members[2:6]:
        member.mode = "reset"
    assert gateway.ask(CHAT, LLAMA).status == 503
    assert gateway.ask(CHAT, {"model": "nobody"}).status == 404
    assert gateway.ask("/nowhere").status == 404
    gateway.entries("/nowhere", 1)
    found = metrics(gateway)
    failed = [found[f"failed_tries_total[member=llama_{number},pool=llama,reason=reset]"] for number in range(4)]
    assert sorted(failed) == [0, 1, 1, 1]
    assert found["retries_total[pool=llama]"] == 2
    assert found["unavailable_total[pool=llama]"] == 1
    assert found["refused_total[status=404]"] == 2
    assert sum(found[f"requests_total[member=llama_{number},pool=llama,status=5xx]"] for number in range(4)) == 1


def test_a_port_of_its_own_shows_the_metrics_and_nothing_else(members: list[Member], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    described = gateway_fleet.unified().model_copy(update={"metrics_port": port})
    with running_gateway(described, members, tmp_path / "etc") as gateway:
        shown = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        assert shown.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        names = [family.name for family in text_string_to_metric_families(shown.text)]
        assert "stoker_gateway_requests" in names
        for path in ("/", "/members", "/check/0", CHAT, "/v1/models"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code == 404
        assert gateway.ask("/metrics").status == 404
        stranger = httpx.HTTPTransport(local_address="127.0.0.9")  # in none of the allowed networks
        with httpx.Client(transport=stranger, trust_env=False) as client:
            assert client.get(f"http://127.0.0.1:{port}/metrics").status_code == 403

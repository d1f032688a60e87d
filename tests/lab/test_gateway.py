"""The gateways in front of the fleet's engines: streams, clients that leave, members that are drained or killed."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from support.commands import wait_for
from support.machine import GPU10, GPU65
from support.project import Project

#: Runs in the lab's network, beside the clients: begins a stream, leaves it after the first piece, and asks the engine how many
#: requests it runs before and after. Its figures are one JSON object; it gives up after ten seconds.
_LEAVE = """
import http.client, json, sys, time

gateway, port, engine = sys.argv[1], int(sys.argv[2]), sys.argv[3]
body = {"model": "qwen2.5-14b", "stream": True, "ignore_eos": True, "max_tokens": 8000, "messages": [{"role": "user", "content": "Count."}]}

def running():
    connection = http.client.HTTPConnection(engine, 11405, timeout=5)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running{"))

def until(count):
    end = time.monotonic() + 10
    while running() != count:
        if time.monotonic() > end:
            sys.exit(f"the engine runs {running()} requests, not {count}")

until(0)
client = http.client.HTTPConnection(gateway, port, timeout=10)
client.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
answer = client.getresponse()
first = answer.readline().decode()
until(1)
left = time.monotonic()
answer.close()
client.close()
until(0)
print(json.dumps({"status": answer.status, "first": first, "freed_after": time.monotonic() - left}))
"""


@pytest.mark.parametrize(("gateway", "port"), [(GPU10, 11434), (GPU65, 11436)], ids=["of the engines' host", "unified"])
def test_a_client_that_leaves_a_stream_frees_its_place_in_the_engine(
    reader: Project, gateway: object, port: int
) -> None:
    address = gateway.address  # type: ignore[attr-defined]
    done = reader.lab_run("python3", "-c", _LEAVE, address, str(port), GPU10.address, seconds=40)
    assert done.code == 0, done
    seen = json.loads(done.out)
    assert (seen["status"], seen["first"][:6]) == (200, "data: ")
    assert seen["freed_after"] < 1.0


LLAMAS = [f"vllm_llama_gpu{gpu}_{number}" for gpu in (0, 1) for number in (0, 1)]
#: Short chats, four at a time; prints the statuses and how many of each.
_CHATS = """
import concurrent.futures, http.client, json, sys
from collections import Counter

address, port, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
body = json.dumps({"model": "llama3.1-8b", "max_tokens": 8, "messages": [{"role": "user", "content": "Count."}]})

def ask(_):
    client = http.client.HTTPConnection(address, port, timeout=30)
    client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = client.getresponse()
    answer.read()
    return answer.status

with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(json.dumps(Counter(pool.map(ask, range(rounds)))))
"""


def chats(project: Project, count: int = 24) -> dict[str, int]:
    """Status -> how many of so many chats through the unified gateway."""
    done = project.lab_run("python3", "-c", _CHATS, GPU65.address, "11436", str(count), seconds=60)
    assert done.code == 0, str(done)
    return dict(json.loads(done.out))


def took(since: str) -> Counter[str]:
    """Member -> chats that it answered, by the unified gateway's log."""
    lines = GPU65.sh(f"docker logs --since {since} bge_nginx 2>/dev/null").splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return Counter(entry["member"].split(", ")[-1] for entry in entries if entry["path"] == "/v1/chat/completions")


def now() -> str:
    return GPU65.sh("date -u +%Y-%m-%dT%H:%M:%S.%NZ").strip()


def test_a_drained_instance_gets_nothing_until_it_is_returned(project: Project) -> None:
    drained, *others = LLAMAS
    done = project.stoker("drain", drained, seconds=60)
    assert done.code == 0, str(done)
    for restarted in (False, True):
        if restarted:
            GPU65.sh("docker restart -t 5 bge_nginx")
            wait_for(
                "the gateway answers", lambda: GPU65.docker_exec("curl -sf http://127.0.0.1:11436/health").code == 0
            )
        since = now()
        assert chats(project) == {"200": 24}
        assert set(took(since)) == set(others)
    assert project.check().code == 0, "a drained instance is no drift"
    refused = project.stoker("drain", *others)
    assert refused.code == 3, str(refused)
    assert "would have no member left" in refused.err
    back = project.stoker("undrain", drained)
    assert back.code == 0, str(back)
    since = now()
    assert chats(project) == {"200": 24}
    assert set(took(since)) == set(LLAMAS)


def test_an_engine_that_is_killed_costs_no_client_an_answer(project: Project) -> None:
    since = now()
    running = project.start("python3", "-c", _CHATS, GPU65.address, "11436", "120")
    wait_for("the engine answers chats", lambda: took(since)[LLAMAS[0]] > 0)
    GPU10.sh(f"docker kill {LLAMAS[0]}")
    done = project.finish(running, 60)
    assert json.loads(done.out) == {"200": 120}, str(done)

"""The gateways in front of the fleet's engines: streams, and clients that leave."""

from __future__ import annotations

import json

import pytest
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

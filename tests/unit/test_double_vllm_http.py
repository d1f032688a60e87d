"""The vLLM double from outside: its HTTP interface."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from double_processes import (
    Double,
    make_bge,
    make_host,
    running,
    start_vllm,
    wait_for,
)
from double_vllm import CHAT, LONG, metric


def test_models_health_version_and_unknown_paths(served: Double) -> None:
    card = served.get("/v1/models").json()["data"][0]
    assert (card["id"], card["max_model_len"], card["owned_by"]) == ("llama3.1-8b", 8192, "vllm")
    assert (served.get("/health").status_code, served.get("/health").content) == (200, b"")
    assert served.get("/ping").status_code == 200
    assert served.get("/version").json() == {"version": "0.19.1"}
    assert served.get("/load").json() == {"server_load": 0}
    assert (served.get("/nope").status_code, served.get("/nope").json()) == (404, {"detail": "Not Found"})
    assert served.get("/v1/chat/completions").status_code == 405
    assert served.post("/v1/embeddings", {"model": "llama3.1-8b", "input": "x"}).status_code == 404


def test_chat_answer(served: Double) -> None:
    answer = served.post("/v1/chat/completions", CHAT).json()
    choice = answer["choices"][0]
    assert answer["object"] == "chat.completion"
    assert choice["finish_reason"] == "length"
    assert "simulated" in choice["message"]["content"]
    assert len(set(choice["message"]["content"])) > 5
    assert answer["usage"]["completion_tokens"] == 8
    assert served.post("/v1/chat/completions", CHAT).json()["choices"][0]["message"] == choice["message"]


def test_chat_stream_is_framed_as_vllm_does(served: Double) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    with httpx.stream("POST", served.url + "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = answer.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 8 + ["length"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8


def test_completions_and_json(served: Double) -> None:
    answer = served.post("/v1/completions", {"model": "llama3.1-8b", "prompt": "once", "max_tokens": 5}).json()
    assert answer["choices"][0]["text"].startswith("This is a simulated")
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer"}}},
    }
    body = {
        **CHAT,
        "max_tokens": 100,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }
    text = served.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    assert json.loads(text) == {"name": "simulated", "ages": []}


@pytest.mark.parametrize(
    ("change", "code", "kind", "text"),
    [
        ({"model": "gpt-4"}, 404, "NotFoundError", "The model `gpt-4` does not exist."),
        ({"messages": None}, 400, "Bad Request", "'loc': ('body', 'messages')"),
        ({"max_tokens": "abc"}, 400, "Bad Request", "unable to parse string as an integer"),
        ({"max_tokens": 9000}, 400, "BadRequestError", "Please request fewer output tokens."),
        ({"max_tokens": 8190}, 400, "BadRequestError", "This model's maximum context length is 8192 tokens."),
        ({"temperature": -1}, 400, "BadRequestError", "temperature must be non-negative, got -1.0."),
    ],
)
def test_bad_requests(served: Double, change: dict[str, Any], code: int, kind: str, text: str) -> None:
    body = {name: value for name, value in {**CHAT, **change}.items() if value is not None}
    answer = served.post("/v1/chat/completions", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (code, code, kind)
    assert text in error["message"]


def test_content_type_and_broken_json(served: Double) -> None:
    url = served.url + "/v1/chat/completions"
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = httpx.post(url, content=json.dumps(CHAT), headers=headers)
        assert answer.status_code == 400
        assert "Unsupported Media Type: Only 'application/json' is allowed" in answer.json()["error"]["message"]
    answer = httpx.post(url, content="{bad", headers={"content-type": "application/json; charset=utf-8"})
    assert (answer.status_code, "JSON decode error" in answer.json()["error"]["message"]) == (400, True)


def test_key_protects_v1_only(v100: Path, llama: Path) -> None:
    host_arguments = ("--gpu-memory-utilization", "0.3", "--max-model-len", "8192", "--served-model-name", "m")
    with running(start_vllm(v100, "serve", str(llama), *host_arguments, VLLM_API_KEY="secret")) as double:
        double.wait_ready()
        assert (double.get("/v1/models").status_code, double.get("/v1/models").json()) == (
            401,
            {"error": "Unauthorized"},
        )
        assert double.get("/v1/models", authorization="Bearer secret").status_code == 200
        assert double.get("/health").status_code == 200
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        assert double.post("/invocations", body).status_code == 200


def test_metrics_live_and_a_leaving_client_frees_its_slot(served: Double) -> None:
    before = metric(served, "generation_tokens_total")
    served.post("/v1/chat/completions", CHAT)
    assert metric(served, "generation_tokens_total") == before + 8
    assert metric(served, "time_to_first_token_seconds_count") >= 1
    with httpx.stream("POST", served.url + "/v1/chat/completions", json={**LONG, "stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        wait_for(lambda: metric(served, "num_requests_running") == 1, "it runs")
        assert metric(served, "kv_cache_usage_perc") > 0
    wait_for(lambda: metric(served, "num_requests_running") == 0, "the slot is free")
    assert (
        'vllm:request_success_total{engine="0",finished_reason="abort",model_name="llama3.1-8b"} 1.0'
        in served.get("/metrics").text
    )


def test_more_requests_than_slots_wait(served: Double) -> None:
    results: list[int] = []

    def ask() -> None:
        results.append(served.post("/v1/chat/completions", {**LONG, "max_tokens": 300}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_for(
        lambda: metric(served, "num_requests_running") == 16 and metric(served, "num_requests_waiting") == 4,
        "16 run, 4 wait",
    )
    for thread in threads:
        thread.join()
    assert results == [200] * 20


def test_embeddings_of_a_pooling_model(tmp_path: Path) -> None:
    host = make_host(tmp_path / "host", "RTX-4090")
    model = make_bge(tmp_path / "bge-m3")
    arguments = (
        "--runner",
        "pooling",
        "--served-model-name",
        "bge-m3",
        "--max-model-len",
        "8192",
        "--max-num-seqs",
        "256",
    )
    with running(start_vllm(host, "serve", str(model), *arguments)) as double:
        double.wait_ready()
        answer = double.post("/v1/embeddings", {"model": "bge-m3", "input": ["one", "two"]}).json()
        vectors = [item["embedding"] for item in answer["data"]]
        assert [len(vector) for vector in vectors] == [1024, 1024]
        assert vectors[0] != vectors[1]
        assert abs(sum(value * value for value in vectors[0]) - 1) < 1e-9
        assert double.post("/v1/chat/completions", CHAT).status_code == 404
        assert "GPU KV cache size" not in double.text()
        too_long = double.post("/v1/embeddings", {"model": "bge-m3", "input": "word " * 9000})
        assert (too_long.status_code, "maximum context length is 8192" in too_long.text) == (400, True)


def test_idle_connections_do_not_hold_the_stop(v100: Path, llama: Path) -> None:
    arguments = ("--gpu-memory-utilization", "0.3", "--max-model-len", "8192", "--served-model-name", "llama3.1-8b")
    with (
        running(start_vllm(v100, "serve", str(llama), *arguments)) as double,
        httpx.Client(base_url=double.url) as client,
    ):
        double.wait_ready()
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert client.get("/health").status_code == 200
        double.process.terminate()
        assert double.wait_exit(3) == 0
    assert "Waiting for connections to close." not in double.text()


def test_large_bodies_with_expect_and_broken_requests(served: Double) -> None:
    command = [
        "curl",
        "-sS",
        "-m",
        "5",
        "-H",
        "Content-Type: application/json",
        "-H",
        "Expect: 100-continue",
        "-d",
        json.dumps(CHAT),
    ]
    began = time.monotonic()
    answer = subprocess.run([*command, served.url + "/v1/chat/completions"], capture_output=True, text=True, timeout=15)
    assert json.loads(answer.stdout)["object"] == "chat.completion"
    assert time.monotonic() - began < 0.9
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 400")

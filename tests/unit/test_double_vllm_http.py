"""The vLLM double from outside: what only a double's answers have, and its own HTTP server.

What it shares with the real engine is in tests/contract.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

import httpx
from double_processes import (
    Double,
    make_bge,
    make_host,
    running,
    start_vllm,
    wait_for,
)
from double_vllm import CHAT, LONG, metric


def test_answers_say_that_they_are_simulated(served: Double) -> None:
    chat = served.post("/v1/chat/completions", CHAT).json()["choices"][0]["message"]["content"]
    assert "simulated" in chat
    assert len(set(chat)) > 5  # the smoke test refuses a repeated character
    completion = served.post("/v1/completions", {"model": "llama3.1-8b", "prompt": "once", "max_tokens": 5}).json()
    assert completion["choices"][0]["text"].startswith("This is a simulated")


def test_a_value_for_every_field_of_a_schema(served: Double) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "ages": {"type": "array", "items": {"type": "integer"}}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = served.post("/v1/chat/completions", {**CHAT, "max_tokens": 100, "response_format": form}).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"name": "simulated", "ages": []}


def test_the_key_can_come_from_the_environment(v100: Path, llama: Path) -> None:
    arguments = ("--gpu-memory-utilization", "0.3", "--max-model-len", "8192")
    with running(start_vllm(v100, "serve", str(llama), *arguments, VLLM_API_KEY="secret")) as double:
        double.wait_ready()
        assert double.get("/v1/models").status_code == 401
        assert double.get("/v1/models", authorization="Bearer secret").status_code == 200


def test_paths_can_be_kept_out_of_the_log(v100: Path, llama: Path) -> None:
    arguments = ("--gpu-memory-utilization", "0.3", "--max-model-len", "8192")
    quiet = ("--disable-access-log-for-endpoints", "/health, /metrics")
    with running(start_vllm(v100, "serve", str(llama), *arguments, *quiet)) as double:
        double.wait_ready()
        for path in ("/health?why=1", "/health/", "/metrics", "/v1/models"):
            double.get(path)
        wait_for(lambda: '"GET /v1/models HTTP/1.1" 200' in double.text(), "the last one's line")
        lines = [line for line in double.text().splitlines() if '"GET ' in line]
    assert [line.split('"')[1] for line in lines] == ["GET /health/ HTTP/1.1", "GET /v1/models HTTP/1.1"]


def test_the_cache_is_in_use_while_a_request_runs(served: Double) -> None:
    with httpx.stream("POST", served.url + "/v1/chat/completions", json={**LONG, "stream": True}) as answer:
        lines = answer.iter_lines()  # kept: its end would be the stream's
        next(lines)
        wait_for(lambda: metric(served, "kv_cache_usage_perc") > 0, "it is in use")
    wait_for(lambda: metric(served, "kv_cache_usage_perc") == 0, "it is free")


def test_vectors_are_as_long_as_the_models(tmp_path: Path) -> None:
    host = make_host(tmp_path / "host", "RTX-4090")
    model = make_bge(tmp_path / "bge-m3")
    with running(
        start_vllm(host, "serve", str(model), "--runner", "pooling", "--served-model-name", "bge-m3")
    ) as double:
        double.wait_ready()
        answer = double.post("/v1/embeddings", {"model": "bge-m3", "input": ["one", "two"]}).json()
    assert [len(item["embedding"]) for item in answer["data"]] == [1024, 1024]


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

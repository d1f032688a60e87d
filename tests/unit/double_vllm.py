"""What the tests of the vLLM double share."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from typing import Any

import httpx
from double_processes import (
    Double,
    running,
    start_vllm,
    wait_for,
)

LLAMA = (
    "--served-model-name",
    "llama3.1-8b",
    "--dtype",
    "half",
    "--gpu-memory-utilization",
    "0.45",
    "--max-model-len",
    "8192",
)
LLAMA += ("--block-size", "64", "--max-num-seqs", "16")
CHAT = {"model": "llama3.1-8b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
LONG = {**CHAT, "max_tokens": 4000, "ignore_eos": True}


def ends(host: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and output of a command line that does not serve."""
    double = start_vllm(host, *arguments, **env)
    with running(double):
        return double.wait_exit(), double.text()


def metric(double: Double, name: str) -> float:
    found = re.search(rf"^vllm:{name}{{[^}}]*}} (\S+)$", double.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


def stream_in_thread(double: Double, body: dict[str, Any]) -> tuple[threading.Thread, list[str]]:
    lines: list[str] = []

    def read() -> None:
        url = double.url + "/v1/chat/completions"
        with (
            contextlib.suppress(httpx.RemoteProtocolError),
            httpx.stream("POST", url, json={**body, "stream": True}, timeout=60) as answer,
        ):
            lines.extend(line for line in answer.iter_lines() if line)

    thread = threading.Thread(target=read)
    thread.start()
    wait_for(lambda: metric(double, "num_requests_running") == 1, "the request runs")
    return thread, lines

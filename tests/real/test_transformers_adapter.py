"""The adapter of the Transformers image (images/transformers/serve.py) before the real `transformers serve` 5.19, with a small Llama on the CPU.

Three servers: one that answers, one whose engine is killed, one that is told to end while it streams.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.description import PROJECT

from lab.machines import content
from lab.real import root

sys.path.insert(0, str(PROJECT / "tests/contract"))

from running import Entered, wait_for

NAMES = ["qwen2.5-7b", "gpt-4o"]
LIMIT = 2048
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Adapter(Entered):
    """serve.py, started; `outcomes` are what /health said until now, each once."""

    def __init__(self, log: Path, *words: str) -> None:
        model = content.folder() / "hub/models/stoker-lab/tiny-llama"
        mounts = {PROJECT / "images/transformers": "/stoker", model: "/models"}
        port = free_port()
        command = [*root.command(mounts, ENVIRONMENT), "python3", "/stoker/serve.py", "--model", "/models"]
        command += ["--served-model-name", *NAMES, "--device", "cpu", "--dtype", "half", *words]
        command += ["--max-model-len", str(LIMIT), "--host", "127.0.0.1", "--port", str(port)]
        super().__init__(command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, log, port)

    def health(self) -> int:
        """The status of /health; 0 when nothing answers."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code
        except httpx.TransportError:
            return 0

    def wait_ready(self) -> Adapter:
        def answers() -> bool:
            assert not self.ended(), self.text()[-3000:]
            outcome = self.health()
            if self.outcomes[-1:] != [outcome]:
                self.outcomes.append(outcome)
            return outcome == 200

        wait_for(answers, "the adapter is ready")
        return self

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60)

    def chat(self, **body: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", **({"messages": [{"role": "user", "content": "Hello."}]} | body))

    def engine_pids(self) -> list[int]:
        return [pid for pid in self.pids() if b"transformers\0serve" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture(scope="module")
def adapter(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    running = Adapter(tmp_path_factory.mktemp("adapter") / "log")
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@contextlib.contextmanager
def another(log: Path) -> Iterator[Adapter]:
    running = Adapter(log)
    try:
        yield running.wait_ready()
    finally:
        running.stop()


def events(lines: Iterator[str]) -> list[str]:
    return [line.removeprefix("data: ") for line in lines if line]


def error(answer: httpx.Response) -> tuple[int, str, str]:
    found = answer.json()["error"]
    assert found["code"] == answer.status_code
    return answer.status_code, found["type"], found["message"]


def test_it_says_that_it_loads_before_it_is_ready(adapter: Adapter) -> None:
    assert [outcome for outcome in adapter.outcomes if outcome] == [503, 200]


def test_the_list_has_the_served_names(adapter: Adapter) -> None:
    listed = httpx.get(f"{adapter.url}/v1/models").json()
    assert [(entry["id"], entry["root"], entry["max_model_len"]) for entry in listed["data"]] == [
        (name, "/models", LIMIT) for name in NAMES
    ]


@pytest.mark.parametrize("name", NAMES)
def test_chat_under_a_name_and_an_alias(adapter: Adapter, name: str) -> None:
    answer = adapter.chat(model=name, max_tokens=8, temperature=0).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == name
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 8


def test_completion(adapter: Adapter) -> None:
    wanted = {
        "model": NAMES[0],
        "prompt": "The capital of France is",
        "max_tokens": 6,
        "min_tokens": 4,
        "temperature": 0,
    }
    answer = adapter.post("/v1/completions", **wanted).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"]
    assert answer["usage"]["completion_tokens"] == 6
    assert adapter.post("/v1/completions", **wanted).json()["choices"] == answer["choices"]  # temperature 0


def test_temperature_samples_and_a_seed_repeats(adapter: Adapter) -> None:
    def text(seed: int) -> str:
        wanted = {"prompt": "Once", "max_tokens": 24, "temperature": 2.0, "top_k": 50, "seed": seed}
        return str(adapter.post("/v1/completions", model=NAMES[0], **wanted).json()["choices"][0]["text"])

    assert text(1) == text(1)
    assert text(1) != text(2)


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_ends_as_openais_does(adapter: Adapter, usage: bool) -> None:
    wanted = {"model": NAMES[1], "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "stream": True}
    wanted |= {"stream_options": {"include_usage": usage}}
    with httpx.stream("POST", f"{adapter.url}/v1/chat/completions", json=wanted, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        *told, end = events(answer.iter_lines())
    assert end == "[DONE]"
    chunks = [json.loads(text) for text in told]
    assert {chunk["model"] for chunk in chunks} == {NAMES[1]}
    assert len({chunk["id"] for chunk in chunks}) == 1
    if usage:
        assert chunks[-1]["choices"] == []
        assert chunks.pop()["usage"]["completion_tokens"] == 5
    assert not any(chunk.get("usage") for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_what_follows_a_stop_string_is_cut(adapter: Adapter) -> None:
    wanted = {"model": NAMES[0], "prompt": "The", "max_tokens": 12, "temperature": 0}
    whole = adapter.post("/v1/completions", **wanted).json()["choices"][0]["text"]
    stop = whole[4:6]
    choice = adapter.post("/v1/completions", **wanted, stop=stop).json()["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_errors_have_openais_form(adapter: Adapter) -> None:
    assert error(adapter.chat(model="no-such-model"))[:2] == (404, "NotFoundError")
    assert "no-such-model" in error(adapter.chat(model="no-such-model"))[2]
    assert error(adapter.post("/v1/embeddings", model=NAMES[0], input="x"))[0] == 404
    assert error(httpx.get(f"{adapter.url}/load_model"))[0] == 404
    for field in ({"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}, {"no_such_field": 1}):
        status, kind, message = error(adapter.chat(model=NAMES[0], **field))
        assert (status, kind) == (400, "BadRequestError")
        assert next(iter(field)) in message
    assert error(adapter.post("/v1/completions", model=NAMES[0], prompt=["a", "b"]))[0] == 400
    assert error(adapter.chat(model=NAMES[0], messages=[]))[0] == 400
    assert error(httpx.post(f"{adapter.url}/v1/completions", content=b"{"))[0] == 400


def test_what_asks_for_nothing_is_taken(adapter: Adapter) -> None:
    taken = {"n": 1, "logprobs": False, "response_format": {"type": "text"}, "user": "somebody", "presence_penalty": 0}
    assert adapter.chat(model=NAMES[0], max_tokens=2, **taken).status_code == 200


def test_a_prompt_that_is_too_long_is_refused(adapter: Adapter) -> None:
    status, _, message = error(adapter.post("/v1/completions", model=NAMES[0], prompt="word " * 2 * LIMIT))
    assert status == 400
    assert f"maximum context length is {LIMIT} tokens" in message
    assert error(adapter.chat(model=NAMES[0], max_tokens=LIMIT + 1))[0] == 400


def test_one_request_at_a_time_and_a_client_that_leaves_ends_its_own(adapter: Adapter) -> None:
    def figures() -> dict[str, float]:
        lines = httpx.get(f"{adapter.url}/metrics").text.splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}

    long = {"model": NAMES[0], "prompt": "The", "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{adapter.url}/v1/completions", json=long, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        second = threading.Thread(target=adapter.chat, kwargs={"model": NAMES[0], "max_tokens": 2})
        second.start()
        wait_for(lambda: figures()["transformers:num_requests_waiting"] == 1, "the second request waits")
        assert figures()["transformers:num_requests_running"] == 1
    second.join(30)
    assert not second.is_alive()
    found = wait_for(lambda: figures() if figures()["transformers:num_requests_running"] == 0 else None, "nothing runs")
    assert found["transformers:num_requests_waiting"] == 0
    assert found["transformers:generation_tokens_total"] > 0


def test_it_ends_when_its_engine_has_died(engine: None, tmp_path: Path) -> None:
    with another(tmp_path / "log") as running:
        (pid,) = running.engine_pids()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: running.health() in (503, 0), "/health says it")
        assert error(running.chat(model=NAMES[0]))[0] == 503
        assert running.wait_exit() == 137
        assert "the engine ended by itself, exit status 137" in running.text()
        assert not running.pids()


def test_sigterm_ends_both(engine: None, tmp_path: Path) -> None:
    with another(tmp_path / "log") as running:
        long = {"model": NAMES[0], "prompt": "The", "max_tokens": 2000, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{running.url}/v1/completions", json=long, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.signal(signal.SIGTERM)
            assert events(lines)[-1] == "[DONE]"
        assert running.wait_exit() == 0
        assert not running.pids()


def test_a_model_that_cannot_be_loaded_ends_it(engine: None, tmp_path: Path) -> None:
    running = Adapter(tmp_path / "log", "--device", "no-such-device")
    try:
        assert running.wait_exit() == 1
        assert "the engine ended by itself, exit status 1" in running.text()
    finally:
        running.stop()

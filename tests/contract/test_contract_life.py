"""A server's life: while it loads, its log, how it stops, and what happens when its engine dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from clause import Clause, Has, OneOf
from running import Running, wait_for
from servers import Servers
from subjects import Subject
from wire import AUTHORIZED, ask, outcome

LONG = {"model": "llama3.1-8b", "prompt": "Say hello.", "ignore_eos": True, "stream": True}
SHORT = {"model": "llama3.1-8b", "prompt": "x", "max_tokens": 1}
HANG_SECONDS = 15.0
"""A stop that takes longer is one that waits for its client."""

PHASES = [
    "version ",
    "non-default args:",
    "Resolved architecture: LlamaForCausalLM",
    "Using max model len 8192",
    "Initializing a V1 LLM engine (v",
    "world_size=1 rank=0",
    "Starting to load model",
    "Loading safetensors checkpoint shards:",
    "Loading weights took",
    "KV cache size:",
    "Maximum concurrency for 8,192 tokens per request:",
    "init engine (profile, create kv cache, warmup model) took",
    "Starting vLLM server on http://",
    "Application startup complete.",
]


@dataclass
class Stream:
    """A streamed answer that somebody reads."""

    running: Running
    tokens: int
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    error: str = ""
    first: threading.Event = field(default_factory=threading.Event)
    connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Stream:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        assert self.first.wait(60), "the stream does not begin"
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        self.thread.join(60)

    def _read(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=120)
        try:
            body = json.dumps({**LONG, "max_tokens": self.tokens})
            self.connection.request(
                "POST", "/v1/completions", body, {"content-type": "application/json", **self.headers}
            )
            response = self.connection.getresponse()
            while piece := response.read1(65536):
                self.data += piece
                self.first.set()
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.error = type(error).__name__
        self.first.set()

    def leave(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.connection.sock.shutdown(2)  # type: ignore[union-attr]

    def events(self) -> list[str]:
        return [
            line.removeprefix("data: ")
            for line in self.data.decode(errors="replace").split("\n\n")
            if line.startswith("data: ")
        ]

    def end(self) -> str:
        """How it ended: by a finish reason, by an error event, or cut off."""
        events = self.events()
        if "[DONE]" not in events:
            return "cut off"
        last = json.loads(events[events.index("[DONE]") - 1])
        return "error" if "error" in last else str(last["choices"][0]["finish_reason"])


# --- while it loads -------------------------------------------------------------------------------------------------


@pytest.mark.server("generating")
def test_the_port_is_held_while_it_loads(clause: Clause, server: Running) -> None:
    clause.check(server.port_held, {True})


@pytest.mark.server("generating")
def test_log_phases_in_order(clause: Clause, server: Running) -> None:
    text = server.text()
    places = {phase: text.find(phase) for phase in PHASES}
    known = sorted((place, phase) for phase, place in places.items() if place >= 0)
    clause.check([phase for _, phase in known], PHASES)


@pytest.mark.server("generating")
def test_the_log_names_the_process(clause: Clause, server: Running) -> None:
    clause.check(["(APIServer pid=" in server.text(), "(EngineCore pid=" in server.text()], [True, True])


# --- stopping -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stopped:
    """What was seen of a stop."""

    code: int
    seconds: float
    log: str
    end: str = ""
    during: tuple[Any, ...] = ()


def stop_with_a_stream(running: Running, subject: Subject) -> Stopped:
    with Stream(running, subject.stream_tokens) as stream:
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        hung = False
        try:
            code = running.wait_exit(HANG_SECONDS)
        except Exception:  # subprocess.TimeoutExpired: it waits for its client, as it sometimes does
            hung = True
            stream.leave()
            code = running.wait_exit()
        seconds = time.monotonic() - began
        stream.thread.join(60)
        return Stopped(code, seconds, running.text(), "waits for its client" if hung else stream.end())


def drain(running: Running, subject: Subject) -> Stopped:
    with Stream(running, subject.stream_tokens) as stream:
        running.signal(signal.SIGTERM)
        wait_for(lambda: "raining" in running.text() or running.ended(), "it drains")
        during = (outcome(running, "/health"), ask(running, "POST", "/v1/completions", SHORT).status)
        began = time.monotonic()
        code = running.wait_exit(180)
        stream.thread.join(60)
        return Stopped(code, time.monotonic() - began, running.text(), stream.end(), during)


def interrupt(running: Running, subject: Subject) -> Stopped:
    wait_for(
        lambda: "Initializing a V1 LLM engine" in running.text(), "the engine's process starts", subject.start_seconds
    )
    running.signal(signal.SIGTERM)
    wait_for(
        lambda: running.ended() or outcome(running, "/health") == 200,
        "it ends, or serves all the same",
        subject.start_seconds,
    )
    return Stopped(
        running.wait_exit() if running.ended() else -1, 0.0, running.text(), "" if running.ended() else "serves"
    )


@pytest.mark.server("aborting")
def test_sigterm_aborts_what_runs_or_waits_for_the_client(clause: Clause, servers: Servers) -> None:
    """Both were seen of the real one (2 and 3 of 5 tries); a client that leaves ends the wait. The exit code is 0 either way."""
    stopped = servers.once("aborting", stop_with_a_stream)
    clause.check((stopped.code, stopped.end), (0, OneOf("abort", "cut off", "waits for its client")))


@pytest.mark.server("draining")
def test_with_a_timeout_what_runs_is_finished(clause: Clause, servers: Servers) -> None:
    stopped = servers.once("draining", drain)
    clause.check(
        (stopped.code, stopped.end, "Draining 1 in-flight requests (timeout=60s)" in stopped.log), (0, "length", True)
    )


@pytest.mark.server("draining")
def test_while_it_drains_it_looks_healthy_and_refuses(clause: Clause, servers: Servers) -> None:
    clause.check(servers.once("draining", drain).during, (200, 500))


@pytest.mark.server("interrupted")
def test_sigterm_while_it_loads(clause: Clause, servers: Servers) -> None:
    stopped = servers.once("interrupted", interrupt)
    clause.check((stopped.code, stopped.end), (130, ""))


# --- the engine's death ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Died:
    health: tuple[Any, ...]
    models: Any
    inference: int
    code: int
    log: str


def kill_the_engine(running: Running, subject: Subject) -> Died:
    for pid in running.engine_pids():
        os.kill(pid, signal.SIGKILL)
    seen: list[Any] = []

    def sick() -> bool:
        found = outcome(running, "/health")
        if seen[-1:] != [found]:
            seen.append(found)
        return found != 200

    wait_for(sick, "/health says that the engine is dead")
    models = outcome(running, "/v1/models")
    inference = ask(running, "POST", "/v1/completions", SHORT, headers=AUTHORIZED).status
    return Died(tuple(seen), models, inference, running.wait_exit(), running.text())


@pytest.mark.server("dying")
def test_health_is_503_when_the_engine_is_dead(clause: Clause, servers: Servers) -> None:
    clause.check(servers.once("dying", kill_the_engine).health[-1], 503)


@pytest.mark.server("dying")
def test_models_stays_200_when_the_engine_is_dead(clause: Clause, servers: Servers) -> None:
    """Why /v1/models is no health check."""
    clause.check(servers.once("dying", kill_the_engine).models, 200)


@pytest.mark.server("dying")
def test_a_dead_engine_answers_500_and_ends_with_exit_code_0(clause: Clause, servers: Servers) -> None:
    """Why a restart policy of `on-failure` would not bring it back."""
    died = servers.once("dying", kill_the_engine)
    clause.check((died.inference, died.code), (500, 0))


# --- command lines that do not serve --------------------------------------------------------------------------------

LINES: dict[str, tuple[list[str], tuple[int, Any]]] = {
    "an unknown argument": (
        ["serve", "{model}", "--task=embed"],
        (2, Has("vllm: error: unrecognized arguments: --task=embed")),
    ),
    "a value of the wrong type": (
        ["serve", "{model}", "--max-num-seqs", "x"],
        (2, Has("vllm serve: error: argument --max-num-seqs: invalid int value: 'x'")),
    ),
    "a configuration in JSON": (
        ["serve", "{model}", "--config", "/c/vllm_config.json"],
        (1, Has("ValueError: Config file must be of a yaml/yml type. json supplied")),
    ),
    # HF_HUB_OFFLINE is set, as by Stoker: the path is taken for a repository.
    "a model that is not there": (
        ["serve", "/model_data/nowhere"],
        (
            1,
            Has(
                "HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/model_data/nowhere'"
            ),
        ),
    ),
    "a context longer than the model's": (
        ["serve", "{model}", "--max-model-len", "200000"],
        (1, Has("User-specified max_model_len (200000) is greater than the derived max_model_len")),
    ),
    "its version": (["--version"], (0, Has("0.19.1"))),
}


@pytest.mark.parametrize("name", LINES)
def test_ends(clause: Clause, subject: Subject, name: str) -> None:
    words, contract = LINES[name]
    running = subject.command(*words)
    try:
        code = running.wait_exit(120)
        clause.check((code, running.text()), contract)
    finally:
        running.stop()

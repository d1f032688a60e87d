"""A server's life: while it loads, its log, how it stops, and what happens when its engine dies."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import Any

import pytest
from clause import Clause, Has, OneOf
from command_lines import CommandLines
from running import Running, wait_for
from servers import Servers
from streaming import Stream
from subjects import Subject
from wire import ask, outcome

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
        healthy, refused = outcome(running, "/health"), ask(running, "POST", "/v1/completions", SHORT)
        during = (healthy, refused.status, refused.json()["error"]["message"])
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
    """What the client gets is a matter of who is first: of the real one's stream an end by `abort`, by an error event, and none until the
    client leaves were seen (2, 1 and 3 of 6 tries). The exit code is 0 in any case, and it ends.
    """
    stopped = servers.once("aborting", stop_with_a_stream)
    clause.check((stopped.code, stopped.end), (0, OneOf("abort", "error", "cut off", "waits for its client")))


@pytest.mark.server("draining")
def test_with_a_timeout_what_runs_is_finished(clause: Clause, servers: Servers) -> None:
    stopped = servers.once("draining", drain)
    clause.check(
        (stopped.code, stopped.end, "Draining 1 in-flight requests (timeout=60s)" in stopped.log), (0, "length", True)
    )


@pytest.mark.server("draining")
def test_while_it_drains_it_looks_healthy_and_refuses(clause: Clause, servers: Servers) -> None:
    clause.check(servers.once("draining", drain).during, (200, 500, Has("cannot schedule new futures after shutdown")))


@pytest.mark.server("interrupted")
def test_sigterm_while_it_loads(clause: Clause, servers: Servers) -> None:
    stopped = servers.once("interrupted", interrupt)
    clause.check((stopped.code, stopped.end), (130, ""))


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
def test_ends(clause: Clause, command_lines: CommandLines, name: str) -> None:
    words, contract = LINES[name]
    clause.check(command_lines.end(words, (line for line, _ in LINES.values())), contract)

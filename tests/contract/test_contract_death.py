"""The engine's process is killed while a stream runs: what clients and health checks see of it, and how the server ends."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest
from clause import Clause, Has
from running import Running, wait_for
from servers import Servers
from streaming import Stream
from subjects import Subject
from wire import ask, outcome

pytestmark = pytest.mark.server("dying")

SHORT = {"model": "llama3.1-8b", "prompt": "x", "max_tokens": 1}
DEAD = Has("EngineCore encountered an issue. See stack trace (above) for the root cause.")


@dataclass(frozen=True)
class Died:
    health: tuple[Any, ...]
    models: Any
    metrics: Any
    stream: tuple[str, str]
    inference: tuple[int, str]
    code: int
    log: str


def kill_the_engine(running: Running, subject: Subject) -> Died:
    with Stream(running, subject.stream_tokens) as stream:
        for pid in running.engine_pids():
            os.kill(pid, signal.SIGKILL)
        return look_on(running, stream)


def look_on(running: Running, stream: Stream) -> Died:
    seen: list[Any] = []

    def sick() -> bool:
        found = outcome(running, "/health")
        if seen[-1:] != [found]:
            seen.append(found)
        return found != 200

    wait_for(sick, "/health says that the engine is dead")
    models, metrics = outcome(running, "/v1/models"), outcome(running, "/metrics")
    answer = ask(running, "POST", "/v1/completions", SHORT)
    stream.thread.join(60)
    inference = (answer.status, answer.json()["error"]["message"])
    return Died(
        tuple(seen),
        models,
        metrics,
        (stream.end(), stream.error_text()),
        inference,
        running.wait_exit(),
        running.text(),
    )


def test_health_is_503(clause: Clause, servers: Servers) -> None:
    clause.check(servers.once("dying", kill_the_engine).health[-1], 503)


def test_what_stays_200(clause: Clause, servers: Servers) -> None:
    """Why neither /v1/models nor /metrics is a health check."""
    died = servers.once("dying", kill_the_engine)
    clause.check((died.models, died.metrics), (200, 200))


def test_a_stream_ends_with_an_error_event(clause: Clause, servers: Servers) -> None:
    clause.check(servers.once("dying", kill_the_engine).stream, ("error", DEAD))


def test_the_log_says_it(clause: Clause, servers: Servers) -> None:
    clause.check("Engine core proc EngineCore died unexpectedly" in servers.once("dying", kill_the_engine).log, True)


def test_it_answers_500_and_ends_with_exit_code_0(clause: Clause, servers: Servers) -> None:
    """Why a restart policy of `on-failure` would not bring it back."""
    died = servers.once("dying", kill_the_engine)
    clause.check((died.inference, died.code), ((500, DEAD), 0))

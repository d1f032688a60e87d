"""What the tests of stoker.ready put in the place of a host: a Docker daemon on a socket, engines on ports.

The probe script runs for real (/bin/sh, curl, base64) against these.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stoker.ready.question import FILL, Question


def frame(text: str, stream: int = 1) -> bytes:
    """A frame of Docker's log stream."""
    raw = text.encode()
    return bytes([stream, 0, 0, 0]) + len(raw).to_bytes(4, "big") + raw


def full_body(question: Question) -> str:
    """What the host sends: with the text that it repeats itself."""
    return question.body.replace(FILL, question.filler * question.repeat) if question.repeat else question.body


def inspect_json(
    name: str,
    *,
    status: str = "running",
    exit_code: int = 0,
    restarts: int = 0,
    started_at: str = "2026-11-20T10:00:00.123456789Z",
    error: str = "",
    oom: bool = False,
    policy: str = "always",
    container_id: str = "",
) -> dict[str, Any]:
    """The part of docker inspect that a probe reads, in its real place."""
    return {
        "Id": container_id or f"id-of-{name}",
        "Name": f"/{name}",
        "RestartCount": restarts,
        "State": {
            "Status": status,
            "ExitCode": exit_code,
            "StartedAt": started_at,
            "OOMKilled": oom,
            "Error": error,
            "Pid": 4321 if status == "running" else 0,
        },
        "LogPath": f"/var/lib/docker/containers/{name}/{name}-json.log",
        "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}},
        "Config": {"Tty": False, "Image": "vllm/vllm-openai:v0.19.1"},
    }


@dataclass
class FakeDocker:
    """Answers /containers/NAME/json and /containers/NAME/logs on a unix socket."""

    path: Path
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    #: Other paths and what is answered there.
    answers: dict[str, object] = field(default_factory=dict)

    def start(self) -> FakeDocker:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name is http.server's
                parts = urlsplit(self.path)
                if parts.path in fake.answers or not parts.path.startswith("/containers/"):
                    self._say(*((200, fake.answers[parts.path]) if parts.path in fake.answers else (404, {})))
                    return
                _, _, name, what = parts.path.split("/")
                status, body = 404, json.dumps({"message": f"No such container: {name}"}).encode()
                if name in fake.containers and what == "json":
                    status, body = 200, json.dumps(fake.containers[name]).encode()
                elif name in fake.containers and what == "logs":
                    fake.queries.append(parse_qs(parts.query))
                    status, body = 200, fake.logs.get(name, b"")
                self._send(status, body)

            def _say(self, status: int, answer: object) -> None:
                self._send(status, json.dumps(answer, separators=(",", ":")).encode())

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

            def address_string(self) -> str:
                return "docker"

        self.server = socketserver.ThreadingUnixStreamServer(str(self.path), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class FakeEngine:
    """Answers fixed JSON by "METHOD path"; `hold` delays answers to POST until it is set."""

    answers: dict[str, tuple[int, object]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    hold: threading.Event | None = None

    def start(self) -> FakeEngine:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                fake.asked.append((f"{self.command} {self.path}", self.rfile.read(length).decode()))
                if fake.hold and self.command == "POST":
                    fake.hold.wait(20)
                status, answer = fake.answers.get(f"{self.command} {self.path}", (404, {"error": "no such path"}))
                body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _reply

            def log_message(self, *_: object) -> None: ...

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Scene:
    """How one instance is from a moment on (seconds of the fake clock)."""

    at: float
    container: dict[str, Any] | None = None
    code: int = 0
    log: str = ""
    answer: tuple[int, object] | None = None
    then: object = ""


@dataclass
class ScriptedHost:
    """Plays scenes: a `run` for wait_ready that answers each probe script in its own format, on a fake clock.

    `scenes` in the order of the targets. `fails` maps a moment range to an exception that `run` raises then.
    """

    scenes: list[list[Scene]]
    now: float = 0.0
    look_seconds: float = 0.05
    looks: int = 0
    slept: float = 0.0
    fails: list[tuple[float, float, Exception]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    #: The record of the last load, the host's own clock, and what nvidia-smi prints at a moment of the fake one.
    history: str = ""
    epoch: int = 0
    cards: Callable[[float], str] = lambda now: ""
    #: What it says of the cards of one instance alone, by the instance's place.
    card_errors: dict[int, str] = field(default_factory=dict)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def scene(self, at: int) -> Scene:
        return [one for one in self.scenes[at] if one.at <= self.now][-1]

    def _hold(self, script: str) -> None:
        """Let the time pass that the script waits on a real host: a log counts after some seconds, all else at the next tick."""
        found = re.search(r" hold (\d+) (\d+) /run/stoker-ready/mark ", script)
        if not found:
            return
        begun, end = self.now, self.now + int(found[1]) * 0.5
        for at, scenes in enumerate(self.scenes):
            before = self.scene(at)
            for one in scenes:
                if begun < one.at < end and (one.container, one.code, one.answer) != (
                    before.container,
                    before.code,
                    before.answer,
                ):
                    end = min(end, one.at + 0.5)
                elif begun < one.at < end and one.log != before.log:
                    end = min(end, max(one.at + 0.5, begun + int(found[2]) * 0.5))
        self.now = max(begun, end)

    def run(self, script: str) -> Any:
        from stoker.ready.wait import RunResult

        self._hold(script)
        self.now += self.look_seconds
        self.scripts.append(script)
        for begin, end, error in self.fails:
            if begin <= self.now < end:
                raise error
        if not script.startswith("B="):
            return RunResult(0, "")
        self.looks += 1
        boundary = script.split()[0].removeprefix("B=")
        out: list[str] = []
        docker = b""
        for at in range(len(self.scenes)):
            one = self.scene(at)
            docker += json.dumps(one.container).encode() if one.container else b'{"message": "No such container"}'
            docker += f"\n{boundary} state {at} {200 if one.container else 404}\n".encode()
            if f"{boundary} log {at}\\n" in script:
                docker += frame(one.log) + f"\n{boundary} log {at}\n".encode()
        out += [base64.b64encode(docker).decode(), f"{boundary} docker"]
        for at in range(len(self.scenes)):
            one = self.scene(at)
            if f"health {at} " in script:
                out.append(f"{boundary} health {at} {one.code or '000'}")
            if f"%s card {at}\\n" in script:
                out += [self.card_errors.get(at, "GPU-of-it"), f"{boundary} card {at}"]
            if f"%s history {at} " in script:
                out += [self.history, f"{boundary} history {at} {self.epoch}"]
            if f"tell {at} " in script and one.code == 200 and one.answer:
                code, body = one.answer
                out += [body if isinstance(body, str) else json.dumps(body), f"{boundary} body {at}"]
                out += [one.then if isinstance(one.then, str) else json.dumps(one.then), f"{boundary} then {at}"]
                out += [f"{code} 0.2 ", f"{boundary} answer {at}"]
        if "\nsamples\n" in script:
            out += [self.cards(self.now), f"{boundary} cards 0"]
        out.append(f"{boundary} end")
        return RunResult(0, "\n".join(out) + "\n")

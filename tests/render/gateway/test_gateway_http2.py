"""A gateway whose own port speaks HTTPS, asked by HTTP/2 through curl: the same answers, streams and ends as by HTTP/1.1."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gateway_fleet
import pytest
from gateway_members import Member
from gateway_process import PATIENCE, RunningGateway, pool_of, running_gateway, until
from support.certificates import write_pair

CHAT = "/v1/chat/completions"
QWEN = {"model": "qwen2.5-14b", "messages": [{"role": "user", "content": "hello"}]}
LLAMA = {**QWEN, "model": "llama3.1-8b"}
OUTSIDER = "127.9.9.9"


@dataclass
class Reply:
    version: str
    status: int
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


@dataclass
class Secure:
    gateway: RunningGateway
    certificate: Path

    def curl(self, path: str, *options: str) -> list[str]:
        port = self.gateway.port
        pin = ["--cacert", str(self.certificate), "--resolve", f"gateway.test:{port}:127.0.0.1"]
        return ["curl", "-qsS", "--http2", "--max-time", "30", "--path-as-is", *pin, *options, f"https://gateway.test:{port}{path}"]  # fmt: skip

    def ask(self, path: str, body: bytes | object = None, *options: str) -> Reply:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is not None:
            options = (*options, "-H", "Content-Type: application/json", "--data-binary", "@-")
        command = self.curl(path, "-w", "\\n%{http_version} %{http_code}", *options)
        done = subprocess.run(command, input=sent, capture_output=True, check=True)
        text, _, trailer = done.stdout.rpartition(b"\n")
        version, status = trailer.decode().split()
        return Reply(version, int(status), text)


@pytest.fixture(scope="module")
def shared(all_members: list[Member], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    directory = tmp_path_factory.mktemp("http2")
    certificate = write_pair(directory / "etc-tls")
    described = {"certificate": "/etc/stoker/tls/fullchain.pem", "key": "/etc/stoker/tls/privkey.pem"}
    gateway = gateway_fleet.unified_with(tls=described, limits={"parsed_body_mib": 6, "body_mib": 8})
    with running_gateway(gateway, all_members, directory / "etc") as running:
        yield Secure(running, certificate)


@pytest.fixture
def secure(shared: Secure, all_members: list[Member]) -> Secure:
    for member in all_members:
        member.forget()
    return shared


def test_the_pool_by_the_body(secure: Secure, all_members: list[Member]) -> None:
    for body, member in ((QWEN, "qwen"), (LLAMA, "llama")):
        reply = secure.ask(CHAT, body)
        assert (reply.version, reply.status) == ("2", 200)
        assert json.loads(reply.body)["member"].split("_")[0] == member
    assert json.loads(all_members[-1].received[-1].body) == QWEN


def test_http_1_is_spoken_too_on_the_same_port(secure: Secure) -> None:
    assert secure.ask(CHAT, QWEN, "--http1.1").version == "1.1"
    assert pool_of(secure.gateway.ask(CHAT, QWEN)) == "qwen"
    assert secure.gateway.identity


def test_there_is_no_plain_http(secure: Secure) -> None:
    plain = RunningGateway(secure.gateway.port, "", secure.gateway.process, secure.gateway.log_file)
    for reply in (plain.ask("/health"), plain.ask(CHAT, QWEN), plain.ask(CHAT, QWEN, source=OUTSIDER)):
        assert (reply.status, reply.error["code"]) == (400, "https_port")


def test_what_is_inside_stays_plain(secure: Secure) -> None:
    assert secure.gateway.member("qwen")["pool"] == "qwen"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CHAT, b"no json", 400, "invalid_json"),
        (CHAT, {**QWEN, "model": "nobody's"}, 404, "model_not_found"),
        (CHAT, b"x" * (6 * 2**20 + 1), 413, "body_too_large"),
        ("/llama/v1/chat/completions", b"x" * (8 * 2**20 + 1), 413, "body_too_large"),
        (CHAT, None, 405, "method_not_allowed"),
        ("/nowhere", None, 404, "unknown_path"),
        ("/metrics", None, 404, "unknown_path"),
        ("/x/../v1/models", None, 404, "unknown_path"),
        ("/v1/%6dodels", None, 404, "unknown_path"),
        ("//v1/models", None, 404, "unknown_path"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_errors_have_their_form(secure: Secure, path: str, body: object, status: int, code: str) -> None:
    reply = secure.ask(path, body)
    assert (reply.version, reply.status, reply.code) == ("2", status, code)


def test_an_address_outside_is_refused(secure: Secure) -> None:
    reply = secure.ask(CHAT, QWEN, "--interface", OUTSIDER)
    assert (reply.version, reply.status, reply.code) == ("2", 403, "network_not_allowed")
    assert secure.ask("/health", None, "--interface", OUTSIDER).body == b"OK"


def test_a_body_of_unknown_length(secure: Secure, all_members: list[Member]) -> None:
    """HTTP/2 has no chunks, and a body may come without its length."""
    body = {**QWEN, "padding": "x" * 2**20}
    reply = secure.ask(CHAT, body, "-H", "Content-Length:")
    assert (reply.version, reply.status) == ("2", 200)
    assert json.loads(all_members[-1].received[-1].body) == body


def test_a_member_that_is_busy_is_replaced(secure: Secure, all_members: list[Member]) -> None:
    for member in all_members[2:4]:
        member.mode = "busy"
    assert all(secure.ask(CHAT, LLAMA).status == 200 for _ in range(4))


@contextlib.contextmanager
def stream_begun(secure: Secure, member: Member) -> Iterator[subprocess.Popen[bytes]]:
    """A stream whose first piece has come; the others wait for the member's gate."""
    member.gate = threading.Semaphore(1)
    command = secure.curl(CHAT, "-N", "-d", json.dumps({**QWEN, "stream": True}))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        try:
            assert b'"piece": 0' in client.stdout.readline()
            yield client
        finally:
            client.kill()


def test_streams_come_in_pieces(secure: Secure, all_members: list[Member]) -> None:
    with stream_begun(secure, all_members[-1]) as client:
        all_members[-1].gate.release(2)  # type: ignore[union-attr]
        assert b"[DONE]" in client.stdout.read()  # type: ignore[union-attr]


def test_a_client_that_leaves_is_told_to_the_engine(secure: Secure, all_members: list[Member]) -> None:
    with stream_begun(secure, all_members[-1]) as client:
        client.kill()
        assert all_members[-1].aborted.wait(PATIENCE)
    until(lambda: secure.gateway.member("qwen")["in_flight"] == 0)


def test_many_requests_on_one_connection(secure: Secure, all_members: list[Member]) -> None:
    """Ten streams side by side; each is answered whole, and they share one connection."""
    body = json.dumps({**LLAMA, "stream": True})
    url = secure.curl(CHAT)[-1]
    # The first request makes the connection that the others wait for and use.
    command = secure.curl(CHAT, "-N", "-Z", "-w", "%{num_connects}\n", "-d", body, *[url] * 9)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("[DONE]") == 10
    connections = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert sorted(connections) == ["0"] * 9 + ["1"]
    assert sum(len(member.received) for member in all_members[2:6]) == 10


def test_http_2_is_not_spoken_without_tls(gateway: RunningGateway) -> None:
    command = ["curl", "-qsS", "--http2-prior-knowledge", f"http://127.0.0.1:{gateway.port}/health"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0

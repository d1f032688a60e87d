"""What must not get through: the engines' other paths, tricks with paths, requests hidden in requests, and headers that lie."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
from dataclasses import dataclass

import pytest
from gateway_members import Member
from gateway_process import PATIENCE, RunningGateway, until

CHAT = "/v1/chat/completions"
QWEN = {"model": "qwen2.5-14b", "messages": []}

# --- paths ---

#: What the engines serve beside what the gateway offers. vLLM v0.19.1, with its server's development mode and LoRA updating.
VLLM_OWN = [
    "/metrics", "/docs", "/redoc", "/openapi.json", "/invocations", "/pooling", "/classify", "/score", "/rerank", "/tokenize", "/detokenize",
    "/tokenizer_info", "/load", "/version", "/ping", "/health/", "/v1/score", "/v1/rerank", "/v2/rerank", "/v1/responses/resp_1", "/v1/messages",
    "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/realtime", "/v1/chat/completions/render", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
    "/sleep", "/wake_up", "/is_sleeping", "/pause", "/resume", "/is_paused", "/update_weights", "/init_weight_transfer_engine", "/abort_requests", "/scale_elastic_ep",
    "/is_scaling_elastic_ep", "/collective_rpc", "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/server_info", "/start_profile", "/stop_profile",
    "/inference/v1/generate",
]  # fmt: skip
OLLAMA_OWN = [
    "/api/pull", "/api/push", "/api/create", "/api/delete", "/api/copy", "/api/show", "/api/ps", "/api/generate", "/api/chat", "/api/tags", "/api/version",
    "/api/blobs/sha256:29fdb92e57cf0827ded04ae6461b5931d01fa595843f55d36f5b275a52087dd2", "/api/signout", "/api/me", "/v1/models/bge-m3", "/v1/images/generations",
    "/api/experimental/model-recommendations",
]  # fmt: skip
GATEWAYS_OWN = [
    "/", "/v1", "/v1/", "/api", "/api/", "/stoker", "/stoker/models/0", "/members", "/check/0", "/@pass", "/stoker/error/400", "/@member_failed", "/pool_llama", "/healthz", "/nginx_status",
]  # fmt: skip
#: What a prefix offers of these, and with which method.
OFFERED = {("/embed/api/tags", "GET"), ("/embed/api/version", "GET")}


@pytest.mark.parametrize("prefix", ["", "/llama", "/qwen", "/embed"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_the_engines_other_paths_reach_no_member(
    gateway: RunningGateway, all_members: list[Member], prefix: str, method: str
) -> None:
    for path in [*VLLM_OWN, *OLLAMA_OWN, *GATEWAYS_OWN, "", "/v1/chat", "/health"]:
        full = (prefix + path) or "/"
        if (full, method) in OFFERED or full == "/health":
            continue
        reply = gateway.ask(full, QWEN if method in ("POST", "PUT", "PATCH") else None, method=method)
        if any(full == offered for offered, _ in OFFERED):
            assert (reply.status, reply.error["code"]) == (405, "method_not_allowed"), full
        else:
            assert (reply.status, reply.error["code"]) == (404, "unknown_path"), full
    assert not any(member.lines for member in all_members)


@pytest.mark.parametrize("prefix", ["/llama", "/qwen"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/models"])
def test_a_prefix_offers_only_what_its_model_does(
    gateway: RunningGateway, all_members: list[Member], path: str, prefix: str
) -> None:
    for method in ("GET", "POST"):
        reply = gateway.ask(f"/embed{path}", QWEN if method == "POST" else None, method=method)
        assert (reply.status, reply.error["code"]) == (404, "unknown_path")
        reply = gateway.ask(f"{prefix}/v1/embeddings", QWEN if method == "POST" else None, method=method)
        assert (reply.status, reply.error["code"]) == (404, "unknown_path")
    assert not any(member.lines for member in all_members)


#: Ways to write a path that some server takes for another one.
TRICKS = [
    "//v1/chat/completions", "/v1//chat/completions", "/llama//v1/models", "//llama/v1/models", "/v1/chat/completions/", "/v1/chat/completions/.",
    "/v1/chat/completions;x", "/v1/chat/completions;/../metrics", "/V1/chat/completions", "/LLAMA/v1/models", "/v1/chat%2Fcompletions", "/v1/chat%2fcompletions",
    "/v1/chat%252fcompletions", "/v1/%63hat/completions", "/%76%31/models", "/x/../v1/chat/completions", "/./v1/chat/completions", "/llama/v1/../metrics",
    "/llama/v1/models/../../metrics", "/llama/v1/models/..%2f..%2fmetrics", "/llama/v1/%2e%2e/metrics", "/llama/v1/%2E%2E/metrics", "/llama/v1/..%2fmetrics",
    "/llama/v1/.%2e/metrics", "/llama/..;/metrics", "/llama/v1/..%5cmetrics", "/llama/v1/..\\metrics", "/llama/v1/%c0%ae%c0%ae/metrics",
    "/v1/chat/completions%20", "/v1/chat/completions%3Fx", "/v1/chat/completions%23", "/v1/models%0d%0aX-Injected:%201", "/v1/models%09", "/%2e/v1/chat/completions",
    "/v1/chat\\completions", "/ready/..", "/x/../v1/models", "//ready", "/embed/%61pi/tags", "/embed/api/tags/..%2fpull", "/embed/api/./pull",
    "/v1/models\xff", "/\xe2\x80\xa5/v1/models",
]  # fmt: skip
#: The same, refused by nginx before it looks for a path.
NOT_HTTP = [
    "/../metrics",
    "/llama/../../metrics",
    "/%2e%2e/metrics",
    "/llama/v1/models%00",
    "/v1/models%00.json",
    "/%",
    "/v1/models%zz",
    "metrics",
    "*",
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [*TRICKS, *NOT_HTTP])
def test_tricks_with_paths_reach_no_member(
    gateway: RunningGateway, all_members: list[Member], path: str, method: str
) -> None:
    reply = gateway.send(request(path, method))
    expected = (400, "bad_request") if path in NOT_HTTP else (404, "unknown_path")
    assert (reply.status, reply.error["code"]) == expected
    assert "x-injected" not in reply.headers
    assert not any(member.lines for member in all_members)


@pytest.mark.parametrize("tail", ["?/../metrics", "?x=%2e%2e%2f", "?a?b", "#/../metrics", "?model=llama3.1-8b"])
def test_what_follows_the_path_goes_nowhere(gateway: RunningGateway, all_members: list[Member], tail: str) -> None:
    reply = gateway.send(request(f"/qwen{CHAT}{tail}", "POST"))
    assert reply.status in (200, 404)
    assert [member.lines for member in all_members if member.lines] == (
        [[f"POST {CHAT} HTTP/1.1"]] if reply.status == 200 else []
    )


def request(path: str, method: str) -> bytes:
    body = BODY if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


# --- requests in requests ---

BODY = b'{"model": "qwen2.5-14b"}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n"
MODELS = b"GET /llama/v1/models HTTP/1.1\r\nHost: g\r\n"
LENGTH = b"Content-Length: 24\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"18\r\n" + BODY + b"\r\n0\r\n\r\n"
HIDDEN = b"POST /invocations HTTP/1.1\r\nHost: g\r\nContent-Length: 24\r\n\r\n" + BODY
#: Ends the connection when nothing before it did, so that every case ends by itself.
LAST = b"GET /health HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"


def of_length(head: bytes, body: bytes) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunk(
    size: bytes = b"18", data: bytes = BODY, end: bytes = b"\r\n", last: bytes = b"0\r\n\r\n", line: bytes = b"\r\n"
) -> bytes:
    return POST + CHUNKED + b"\r\n" + size + line + data + end + last


@dataclass(frozen=True)
class Case:
    """Bytes on one connection, and the status of every answer before that of LAST."""

    name: str
    sent: bytes
    answers: tuple[int, ...]
    #: How many requests the members get.
    passed: int = 0


REFUSED = [
    Case(name, sent, (400,))
    for name, sent in {
        "length and chunked": POST + b"Content-Length: 6\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
        "chunked and length": POST + CHUNKED + LENGTH + b"\r\n" + CHUNKS + HIDDEN,
        "two lengths": POST + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY,
        "two equal lengths": POST + LENGTH + LENGTH + b"\r\n" + BODY,
        "chunked twice": POST + CHUNKED + CHUNKED + b"\r\n" + CHUNKS,
        "space before colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
        "space before colon of the length": POST + b"Content-Length : 24\r\n\r\n" + BODY,
        "folded header": POST + b"X: a\r\n Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + BODY,
        "folded value": POST + b"Transfer-Encoding:\r\n chunked\r\n" + LENGTH + b"\r\n" + BODY,
        "bare carriage return in a header": POST + b"X: a\rTransfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + BODY,
        "bare line feed in a header, and a length": POST + b"X: a\nTransfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + BODY,
        "null in a header": POST + b"X: a\0Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + BODY,
        "form feed in a name": POST + b"Transfer-Encoding\x0c: chunked\r\n" + LENGTH + b"\r\n" + BODY,
        "no name": POST + b": x\r\n" + LENGTH + b"\r\n" + BODY,
        "length with a plus": POST + b"Content-Length: +24\r\n\r\n" + BODY,
        "length with a space in it": POST + b"Content-Length: 2 4\r\n\r\n" + BODY,
        "length in hex": POST + b"Content-Length: 0x18\r\n\r\n" + BODY,
        "list of lengths": POST + b"Content-Length: 24, 24\r\n\r\n" + BODY,
        "negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
        "length beyond 64 bits": POST + b"Content-Length: 18446744073709551640\r\n\r\n" + BODY,
        "empty length": POST + b"Content-Length: \r\n\r\n" + BODY,
        "chunk extension ended by a line feed": chunk(size=b"18;a", line=b"\n"),
        "carriage return in a chunk extension": chunk(size=b"18;a\rb"),
        "chunk size in C's hex": chunk(size=b"0x18"),
        "chunk size with a plus": chunk(size=b"+18"),
        "negative chunk size": chunk(size=b"-18"),
        "chunk size beyond 64 bits": chunk(size=b"10000000000000018"),
        "chunk longer than its size": chunk(size=b"17"),
        "line feed after a chunk's size": chunk(line=b"\n"),
        "line feed after a chunk": chunk(end=b"\n"),
        "line feed after the last size": chunk(last=b"0\n\r\n"),
        "line feed at the end": chunk(last=b"0\r\n\n"),
        "line feed in a trailer": chunk(last=b"0\r\nX: y\n\r\n"),
        "chunked in HTTP/1.0": POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + CHUNKS,
        "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "version with a zero": POST.replace(b"1.1", b"01.1") + LENGTH + b"\r\n" + BODY,
        "protocol in small letters": POST.replace(b"HTTP", b"http") + LENGTH + b"\r\n" + BODY,
        "two hosts": POST + b"Host: h\r\n" + LENGTH + b"\r\n" + BODY,
        "list of hosts": POST.replace(b"Host: g", b"Host: g, h") + LENGTH + b"\r\n" + BODY,
        "path in the host": POST.replace(b"Host: g", b"Host: g/../x") + LENGTH + b"\r\n" + BODY,
        "user in the host": POST.replace(b"Host: g", b"Host: a@b") + LENGTH + b"\r\n" + BODY,
        "space before the method": b" " + POST + LENGTH + b"\r\n" + BODY,
        "tab after the method": POST.replace(b"POST ", b"POST\t") + LENGTH + b"\r\n" + BODY,
        "method in small letters": POST.replace(b"POST ", b"post ") + LENGTH + b"\r\n" + BODY,
        "two protocols": POST.replace(b" HTTP/1.1", b" HTTP/1.1 HTTP/1.1") + LENGTH + b"\r\n" + BODY,
        "all servers": b"OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n",
    }.items()
]  # fmt: skip
UNKNOWN_CODING = [
    Case(f"coding {coding!r}", POST + b"Transfer-Encoding:" + coding + b"\r\n\r\n" + CHUNKS, (501,))
    for coding in (b" identity", b" gzip, chunked", b" chunked, identity", b" chunked,chunked", b" \x0bchunked", b"\tchunked", b' "chunked"', b" xchunked", b"")
]  # fmt: skip
ANSWERED = [
    Case("two requests", POST + LENGTH + b"\r\n" + BODY + POST + LENGTH + b"\r\n" + BODY, (200, 200), passed=2),
    Case("chunked in capitals", POST + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNKS, (200,), passed=1),
    Case("underscores instead of dashes", POST + b"Transfer_Encoding: chunked\r\nContent_Length: 5\r\n" + LENGTH + b"\r\n" + BODY, (200,), passed=1),
    Case("length with a space behind", POST + b"Content-Length: 24 \r\n\r\n" + BODY, (200,), passed=1),
    Case("length with a zero before", POST + b"Content-Length: 024\r\n\r\n" + BODY, (200,), passed=1),
    Case("header without a colon", POST + b"NoColon\r\n" + LENGTH + b"\r\n" + BODY, (200,), passed=1),
    Case("line feeds only", (POST + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY, (200,), passed=1),
    Case("empty lines before", b"\r\n\r\n" + POST + LENGTH + b"\r\n" + BODY, (200,), passed=1),
    Case("chunk extension", chunk(size=b"18;a=b"), (200,), passed=1),
    Case("quote in a chunk extension", chunk(size=b'18;a="'), (200,), passed=1),
    Case("space after a chunk's size", chunk(size=b"18 "), (200,), passed=1),
    Case("zeros before a chunk's size", chunk(size=b"000000000000018"), (200,), passed=1),
    Case("trailers", chunk(last=b"0\r\nContent-Length: 5\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n"), (200,), passed=1),
    Case("HTTP/1.0 kept alive", POST.replace(b"1.1", b"1.0") + LENGTH + b"Connection: keep-alive\r\n\r\n" + BODY, (200,), passed=1),
    Case("HTTP/1.2", POST.replace(b"1.1", b"1.2") + LENGTH + b"\r\n" + BODY, (200,), passed=1),
    Case("waiting for 100", POST + LENGTH + b"Expect: 100-continue\r\n\r\n" + BODY, (100, 200), passed=1),
    Case("waiting for something else", POST + LENGTH + b"Expect: 200-ok\r\n\r\n" + BODY, (200,), passed=1),
    Case("upgrade to HTTP/2", POST + LENGTH + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + BODY, (200,), passed=1),
    Case("upgrade to a web socket", MODELS + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n" + HIDDEN, (200, 404), passed=1),
    Case("headers called hop by hop", POST + LENGTH + b"Connection: Content-Length, X-Forwarded-For, X-Request-ID, Host\r\n\r\n" + BODY, (200,), passed=1),
    Case("target with a scheme", POST.replace(b"POST /", b"POST http://other.example/") + LENGTH + b"\r\n" + BODY, (200,), passed=1),
    Case("another server's address", b"GET http://other.example HTTP/1.1\r\nHost: g\r\n\r\n", (404,)),
    Case("another server's name in the path", b"GET //127.0.0.1:22/v1/models HTTP/1.1\r\nHost: g\r\n\r\n", (404,)),
    Case("no length", POST + b"\r\n" + HIDDEN, (400, 404)),
    Case("length of nothing", of_length(POST, b"") + HIDDEN, (400, 404)),
    Case("hidden in a reading request", of_length(MODELS, HIDDEN), (200,), passed=1),
    Case("hidden in chunks of a reading request", MODELS + CHUNKED + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN), (200,), passed=1),
    Case("hidden in /health", of_length(b"GET /health HTTP/1.1\r\nHost: g\r\n", HIDDEN), (200,)),
    Case("hidden in /v1/models", of_length(b"GET /v1/models HTTP/1.1\r\nHost: g\r\n", HIDDEN), (200,), passed=3),
    Case("hidden in an unknown path", of_length(b"POST /nowhere HTTP/1.1\r\nHost: g\r\n", HIDDEN), (404,)),
    Case("hidden in a wrong method", of_length(b"PUT /v1/chat/completions HTTP/1.1\r\nHost: g\r\n", HIDDEN), (405,)),
    Case("hidden in a refused body", of_length(POST, HIDDEN), (400,)),
]  # fmt: skip


@pytest.mark.parametrize("case", [*REFUSED, *UNKNOWN_CODING, *ANSWERED], ids=lambda case: case.name)
def test_no_request_is_hidden_in_another(gateway: RunningGateway, all_members: list[Member], case: Case) -> None:
    """The members get exactly the requests that the gateway answered, each framed by one length and nothing else."""
    statuses, bodies = conversation(gateway, case.sent + LAST)
    refused = case.answers[-1] in (501,) or case in REFUSED  # nginx closes the connection
    assert tuple(statuses) == (case.answers if refused else (*case.answers, 200))
    assert all(b'{"error"' in body for status, body in zip(statuses, bodies, strict=True) if status >= 400)
    lines = [line for member in all_members for line in member.lines]
    assert len(lines) == case.passed
    assert set(lines) <= {"POST /v1/chat/completions HTTP/1.1", "GET /v1/models HTTP/1.1"}
    for head in (received.head.lower() for member in all_members for received in member.received):
        names = re.findall(r"(?m)^([^:\r\n]+):", head)
        assert names.count("content-length") == 1
        assert not {
            "transfer-encoding",
            "connection",
            "upgrade",
            "expect",
            "te",
            "transfer_encoding",
            "content_length",
        } & set(names)
        assert names.count("host") == names.count("x-forwarded-for") == names.count("x-request-id") == 1


def conversation(gateway: RunningGateway, sent: bytes) -> tuple[list[int], list[bytes]]:
    """Statuses and bodies of all answers until the gateway closes the connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), PATIENCE) as connection:
        connection.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):  # it closed before it had read everything
            while piece := connection.recv(65536):
                received += piece
    statuses, bodies = [], []
    stream = _Bytes(received)
    while stream.left():
        if stream.starts(b"HTTP/1.1 100 Continue\r\n\r\n"):
            statuses.append(100)
            bodies.append(b"")
            continue
        response = http.client.HTTPResponse(stream)  # type: ignore[arg-type]
        response.begin()
        statuses.append(response.status)
        bodies.append(response.read())
    return statuses, bodies


class _Bytes:
    """What was received, in the form from which HTTPResponse reads one answer after another."""

    def __init__(self, received: bytes) -> None:
        self._stream = io.BytesIO(received)
        self._stream.close = lambda: None  # type: ignore[method-assign]

    def makefile(self, mode: str) -> io.BytesIO:
        return self._stream

    def left(self) -> bool:
        return self._stream.tell() < len(self._stream.getbuffer())

    def starts(self, text: bytes) -> bool:
        """Skips the text if it comes next."""
        here = self._stream.tell()
        if self._stream.read(len(text)) == text:
            return True
        self._stream.seek(here)
        return False


def test_http_0_9_gets_what_it_may_read_and_nothing_else(gateway: RunningGateway, all_members: list[Member]) -> None:
    """It has no headers and no body, so it cannot ask a model; reading is harmless."""
    for line in (b"POST /v1/chat/completions\r\n", b"GET /metrics\r\n", b"GET /llama/../metrics\r\n"):
        with socket.create_connection(("127.0.0.1", gateway.port), PATIENCE) as connection:
            connection.sendall(line)
            while connection.recv(65536):
                pass
    assert not any(member.lines for member in all_members)


def test_no_tunnel_is_opened(gateway: RunningGateway, all_members: list[Member]) -> None:
    reply = gateway.send(
        f"CONNECT {all_members[0].address} HTTP/1.1\r\nHost: {all_members[0].address}\r\n\r\n".encode()
    )
    assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
    assert not any(member.lines for member in all_members)


@pytest.mark.parametrize(
    "path", ["/v1/models\xff", "/%c0%ae%c0%ae/x", "/%0a{%22path%22:%22/fake%22}", "/%00", "/\x7f", '/"},{"x":"']
)
def test_the_log_stays_one_ascii_line_a_request(gateway: RunningGateway, path: str) -> None:
    before = len(gateway.logged())
    gateway.send(request(path, "GET"))
    gateway.ask(CHAT, QWEN)

    def ours() -> set[bool]:
        # Two connections may meet two workers, and either may write first; and a line of an earlier test may come late.
        return {json.loads(line)["path"] == CHAT for line in gateway.logged()[before:]}

    until(lambda: ours() == {False, True})


# --- headers ---


def test_who_asks_is_not_the_clients_to_say(gateway: RunningGateway, all_members: list[Member]) -> None:
    """Address and request id are the gateway's own, however often and however written the client sends them."""
    head = POST + LENGTH + b"".join(
        b"%s: %s\r\n" % (name, value)
        for name in (b"X-Forwarded-For", b"x-forwarded-FOR", b"X_Forwarded_For", b"X-Request-ID", b"x-request-id", b"X_Request_Id")
        for value in (b"10.9.9.9", b"10.8.8.8, 10.7.7.7")
    )  # fmt: skip
    reply = gateway.send(head + b"\r\n" + BODY)
    seen = all_members[-1].received[-1].head.lower()
    assert re.findall(r"(?m)^x.forwarded.for: (.*?)\r", seen) == ["127.0.0.1"]
    assert re.findall(r"(?m)^x.request.id: (.*?)\r", seen) == [reply.headers["x-request-id"]]
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])
    assert gateway.log(CHAT)["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    "name",
    [
        "X-Stoker-Pool",
        "X-Stoker-Upstream",
        "X-Gateway-Pool",
        "X-Accel-Redirect",
        "X-HTTP-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
    ],
)
@pytest.mark.parametrize("value", ["llama", "/stoker/models/0", "pool_llama", "/metrics", "DELETE"])
def test_no_header_moves_a_request(gateway: RunningGateway, all_members: list[Member], name: str, value: str) -> None:
    reply = gateway.ask(CHAT, QWEN, headers={name: value})
    assert (reply.status, reply.json["member"], reply.json["path"]) == (200, "qwen", CHAT)
    assert [line for member in all_members for line in member.lines] == [f"POST {CHAT} HTTP/1.1"]

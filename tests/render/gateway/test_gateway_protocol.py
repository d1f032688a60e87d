"""Paths, methods, headers, errors and the log: what gets through the gateway, and what does not."""

from __future__ import annotations

import json

import pytest
from gateway_members import Member
from gateway_process import RunningGateway

CHAT = "/v1/chat/completions"
QWEN = {"model": "qwen2.5-14b", "messages": [{"role": "user", "content": "a secret prompt"}]}


def test_unknown_path_names_the_known_ones(gateway: RunningGateway) -> None:
    message = gateway.ask("/v1/chat").error["message"]
    assert all(path in message for path in (CHAT, "/v1/embeddings", "/api/embed", "/embed, /llama, /qwen", "/ready"))


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        (CHAT, "GET", "POST"), (CHAT, "PUT", "POST"), (CHAT, "DELETE", "POST"), (CHAT, "OPTIONS", "POST"),
        (CHAT, "HEAD", "POST"), ("/llama/v1/completions", "GET", "POST"), ("/api/embed", "DELETE", "POST"),
        ("/v1/models", "POST", "GET, HEAD"), ("/ready", "POST", "GET, HEAD"), ("/embed/api/tags", "POST", "GET, HEAD"),
        ("/embed/api/version", "DELETE", "GET, HEAD"), ("/llama/v1/models", "DELETE", "GET, HEAD"),
    ],
)  # fmt: skip
def test_wrong_method(gateway: RunningGateway, all_members: list[Member], path: str, method: str, allow: str) -> None:
    reply = gateway.ask(path, QWEN if method in ("POST", "PUT") else None, method=method)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert method == "HEAD" or reply.error["code"] == "method_not_allowed"
    assert not any(member.received for member in all_members)


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET /health HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /%00 HTTP/1.1\r\nHost: g\r\n\r\n", 400, "bad_request"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: g\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: g\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/9.9\r\nHost: g\r\n\r\n", 505, "http_version"),
        (b"TRACE / HTTP/1.1\r\nHost: g\r\n\r\n", 405, "method_not_allowed"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else None,
)
def test_errors_that_nginx_makes_have_the_same_form(
    gateway: RunningGateway, request_bytes: bytes, status: int, code: str
) -> None:
    reply = gateway.send(request_bytes)
    assert (reply.status, reply.error["code"]) == (status, code)


def test_what_the_member_sees(gateway: RunningGateway, all_members: list[Member]) -> None:
    reply = gateway.ask(f"{CHAT}?key=value", QWEN, headers={
        "Content-Type": "application/json; charset=utf-8", "X-Forwarded-For": "10.9.9.9", "X-Request-ID": "mine",
        "Authorization": "Bearer key", "Connection": "keep-alive, X-Other",
    })  # fmt: skip
    seen = all_members[-1].received[-1]
    assert (seen.method, seen.path) == ("POST", CHAT)
    assert seen.headers["content-type"] == "application/json; charset=utf-8"
    assert seen.headers["x-forwarded-for"] == "127.0.0.1"
    assert seen.headers["host"] == "127.0.0.1"
    assert seen.headers["authorization"] == "Bearer key"
    assert "connection" not in seen.headers
    assert "transfer-encoding" not in seen.headers
    assert seen.headers["x-request-id"] == reply.headers["x-request-id"] != "mine"
    assert json.loads(seen.body) == QWEN


def test_content_type_is_the_clients_even_when_wrong(gateway: RunningGateway, all_members: list[Member]) -> None:
    gateway.ask(CHAT, QWEN, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert all_members[-1].received[-1].headers["content-type"] == "application/x-www-form-urlencoded"


def test_errors_of_the_engine_pass_unchanged(gateway: RunningGateway, all_members: list[Member]) -> None:
    all_members[-1].mode = "error"
    reply = gateway.ask(CHAT, QWEN)
    assert (reply.status, reply.json) == (500, {"error": {"message": "qwen is error"}})


def test_the_log_says_who_served_what(gateway: RunningGateway, all_members: list[Member]) -> None:
    reply = gateway.ask("/qwen/v1/chat/completions?secret=argument", QWEN)
    entry = gateway.log("/qwen/v1/chat/completions")
    assert entry["id"] == reply.headers["x-request-id"]
    assert (entry["client"], entry["method"], entry["status"]) == ("127.0.0.1", "POST", "200")
    assert (entry["model"], entry["pool"], entry["stream"]) == ("qwen2.5-14b", "qwen", "false")
    assert (entry["member"], entry["member_status"]) == (all_members[-1].name, "200")
    assert all(float(entry[key]) >= 0 for key in ("connect_s", "first_byte_s", "response_s", "total_s"))
    assert int(entry["bytes_in"]) > 0 < int(entry["bytes_out"])


def test_the_log_holds_no_bodies_and_no_health_checks(gateway: RunningGateway) -> None:
    gateway.ask("/health")
    gateway.ask("/ready")
    gateway.ask("/v1/completions?secret=argument", QWEN)
    assert gateway.log("/v1/completions")
    output = gateway.output()
    assert "secret" not in output
    assert '"path":"/health"' not in output
    assert '"path":"/ready"' not in output

"""How much one client may ask for: requests a minute and at once, by key or by address; sizes of headers."""

from __future__ import annotations

import hashlib
import socket
import threading

import gateway_fleet
import pytest
from gateway_members import Member
from gateway_process import RunningGateway, StartProtected, until

from stoker.render.gateway import render_gateway

CHAT = "/v1/chat/completions"
QWEN = {"model": "qwen2.5-14b", "messages": [{"role": "user", "content": "hello"}]}
STREAM = QWEN | {"stream": True}
LLAMA_STREAM = STREAM | {"model": "llama3.1-8b"}
EMBED, TEXT = "/v1/embeddings", {"model": "bge-m3", "input": "x"}
KEYS = {"team-a": "sk-test-of-team-a-0123456789", "team-b": "sk-test-of-team-b-0123456789"}


def key(name: str, **limits: int) -> dict[str, object]:
    entry: dict[str, object] = {"name": name, "sha256": hashlib.sha256(KEYS[name].encode()).hexdigest()}
    return entry | ({"limits": limits} if limits else {})


def statuses(gateway: RunningGateway, count: int, name: str = "", source: str = "127.0.0.1") -> list[int]:
    headers = {"Authorization": f"Bearer {KEYS[name]}"} if name else {}
    return [gateway.ask(CHAT, QWEN, headers=headers, source=source).status for _ in range(count)]


def test_nothing_is_limited_unless_asked_for() -> None:
    gateway = gateway_fleet.unified()
    text = render_gateway(gateway, gateway_fleet.default_backends(gateway))[gateway.config_file]
    assert "limit_req zone" not in text
    assert "limit_conn " not in text


def test_requests_a_minute(protected: StartProtected, all_members: list[Member]) -> None:
    gateway = protected(client_limits={"requests_per_minute": 2, "burst": 4})
    assert statuses(gateway, 4) == [200] * 4
    before = len(all_members[-1].received)
    reply = gateway.ask(f"{CHAT}?secret=argument", QWEN)
    assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
    assert reply.headers["retry-after"] == "30", "a request is free again after half a minute"
    assert reply.headers["x-request-id"]
    assert len(all_members[-1].received) == before
    assert gateway.log_of(reply)["status"] == "429"
    assert "secret" not in gateway.output()


def test_one_at_a_time_and_no_burst(protected: StartProtected) -> None:
    assert statuses(protected(client_limits={"requests_per_minute": 1, "burst": 1}), 2) == [200, 429]


def test_each_address_counts_for_itself(protected: StartProtected) -> None:
    gateway = protected(client_limits={"requests_per_minute": 1, "burst": 2}, allowed_networks=["127.1.1.0/24"])
    assert statuses(gateway, 3) == [200, 200, 429]
    assert statuses(gateway, 3, source="127.1.1.7") == [200, 200, 429]


def test_each_key_counts_for_itself_wherever_it_comes_from(protected: StartProtected) -> None:
    gateway = protected(
        client_limits={"requests_per_minute": 1, "burst": 2},
        keys=[key("team-a"), key("team-b")],
        allowed_networks=["127.1.1.0/24"],
    )
    assert statuses(gateway, 1, "team-a") + statuses(gateway, 2, "team-a", source="127.1.1.7") == [200, 200, 429]
    assert statuses(gateway, 3, "team-b") == [200, 200, 429]


def test_a_key_with_limits_of_its_own(protected: StartProtected) -> None:
    gateway = protected(
        client_limits={"requests_per_minute": 1, "burst": 2},
        keys=[key("team-a", requests_per_minute=6, burst=5), key("team-b")],
    )
    assert statuses(gateway, 6, "team-a") == [200] * 5 + [429]
    assert statuses(gateway, 3, "team-b") == [200, 200, 429]
    waits = [gateway.ask(CHAT, QWEN, headers={"x-api-key": secret}).headers["retry-after"] for secret in KEYS.values()]
    assert waits == ["10", "60"]


def test_a_key_that_is_not_limited_where_others_are(protected: StartProtected) -> None:
    gateway = protected(
        client_limits={"requests_per_minute": 1, "burst": 1}, keys=[key("team-a") | {"limits": {}}, key("team-b")]
    )
    assert statuses(gateway, 5, "team-a") == [200] * 5
    assert statuses(gateway, 2, "team-b") == [200, 429]


def test_who_is_not_let_in_uses_nothing_up(protected: StartProtected) -> None:
    gateway = protected(client_limits={"requests_per_minute": 1, "burst": 1}, keys=[key("team-a")])
    assert {gateway.ask(CHAT, QWEN, headers={"x-api-key": "wrong"}).status for _ in range(3)} == {401}
    assert {gateway.ask("/none", headers={"x-api-key": KEYS["team-a"]}).status for _ in range(3)} == {404}
    assert {gateway.ask("/health").status for _ in range(3)} == {200}
    assert statuses(gateway, 2, "team-a") == [200, 429]


# --- at the same time ---


def first_piece(connection: socket.socket) -> None:
    received = b""
    while b'"piece": 0' not in received:
        received += connection.recv(4096)


def to_the_end(connection: socket.socket) -> None:
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        received += connection.recv(4096)


def test_a_stream_counts_until_its_last_byte(protected: StartProtected, all_members: list[Member]) -> None:
    gateway = protected(client_limits={"concurrent": 2}, allowed_networks=["127.1.1.0/24"])
    for member in all_members:
        if member.engine == "vllm":
            member.gate = threading.Semaphore(1)  # lets a stream begin and holds it then
    with gateway.open(CHAT, STREAM) as one, gateway.open(CHAT, LLAMA_STREAM) as two:
        first_piece(one)
        first_piece(two)
        reply = gateway.ask(EMBED, TEXT)
        assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (429, "rate_limit_exceeded", "1")
        assert gateway.ask(EMBED, TEXT, source="127.1.1.1").status == 200
        for member in all_members:
            if member.gate:
                member.gate.release(2)
        to_the_end(one)
        to_the_end(two)
        until(lambda: gateway.ask(EMBED, TEXT).status == 200)


def test_who_leaves_makes_room(protected: StartProtected, all_members: list[Member]) -> None:
    gateway = protected(client_limits={"concurrent": 1})
    qwen = all_members[-1]
    qwen.gate = threading.Semaphore(1)
    with gateway.open(CHAT, STREAM) as connection:
        first_piece(connection)
        assert gateway.ask("/llama/v1/completions", {"prompt": "x"}).status == 429
    assert qwen.aborted.wait(10)
    until(lambda: gateway.ask("/llama/v1/completions", {"prompt": "x"}).status == 200)


def test_requests_at_once_for_one_key(protected: StartProtected, all_members: list[Member]) -> None:
    gateway = protected(keys=[key("team-a", concurrent=1), key("team-b")])
    qwen = all_members[-1]
    qwen.gate = threading.Semaphore(0)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nContent-Length: 24\r\nx-api-key: {KEYS['team-a']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(head.encode() + b'{"model": "qwen2.5-14b"}')
        until(lambda: qwen.running)
        asked = [
            gateway.ask("/llama/v1/completions", {"prompt": "x"}, headers={"x-api-key": secret}).status
            for secret in KEYS.values()
        ]
        assert asked == [429, 200]
        qwen.gate.release(1)
        assert connection.recv(12) == b"HTTP/1.1 200"


# --- headers ---


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (f"X-Long: {'x' * 8000}\r\n", 200),
        (f"X-Long: {'x' * 8200}\r\n", 431),
        ("".join(f"X-{n}: {'x' * 7000}\r\n" for n in range(3)), 200),
        ("".join(f"X-{n}: {'x' * 7000}\r\n" for n in range(6)), 431),
        ("".join(f"X-{n}: x\r\n" for n in range(2000)), 431),
    ],
    ids=["one of 8 kB", "one too long", "three", "together too long", "too many"],
)
def test_headers_are_bounded(gateway: RunningGateway, headers: str, status: int) -> None:
    reply = gateway.send(f"GET /v1/models HTTP/1.1\r\nHost: g\r\n{headers}\r\n".encode())
    assert reply.status == status
    assert status == 200 or reply.error["code"] == "headers_too_large"

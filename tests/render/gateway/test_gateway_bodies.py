"""What the gateway makes of request bodies: the decision of Python's json, or a clean refusal."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
from gateway_members import Member
from gateway_process import Reply, RunningGateway, pool_of, read_reply

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{}x",
        b"nonsense",
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b'{"model": NaN}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        '{"model": "qwen2.5-14b"}'.encode("utf-16"),
        b"\x00",
        b"a=b&c=d",
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_not_a_json_object_is_refused(gateway: RunningGateway, all_members: list[Member], raw: bytes) -> None:
    reply = gateway.ask("/v1/chat/completions", raw=raw)
    assert (reply.status, reply.error["code"]) == (400, "invalid_json")
    assert not any(member.received for member in all_members)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model": "llama3.1-8b", "model": "qwen2.5-14b"}',
        b'{"mod\\u0065l": "qwen2.5\\u002d14b"}',
        b'\xef\xbb\xbf{"model": "qwen2.5-14b"}',
        b' \r\n\t{"model":\n"qwen2.5-14b"} \n',
        b'{"nested": {"model": "llama3.1-8b"}, "model": "qwen2.5-14b"}',
        b'{"__proto__": {"model": "llama3.1-8b"}, "model": "qwen2.5-14b"}',
        b'{"big": 123456789012345678901234567890, "model": "qwen2.5-14b"}',
        '{"text": "\U0001f600 \u4f60\u597d", "model": "qwen2.5-14b"}'.encode(),
        b'{"deep": ' + b"[" * 500 + b"]" * 500 + b', "model": "qwen2.5-14b"}',
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_the_decision_is_that_of_pythons_json(gateway: RunningGateway, all_members: list[Member], raw: bytes) -> None:
    assert json.loads(raw)["model"] == "qwen2.5-14b"
    assert pool_of(gateway.ask("/v1/chat/completions", raw=raw)) == "qwen"
    assert all_members[-1].received[-1].body == raw, "bodies pass byte for byte"


def test_a_chunked_body_is_read_whole(gateway: RunningGateway) -> None:
    pieces = [b'{"model": "qwe', b'n2.5-14b", "messages": []}']
    assert pool_of(gateway.ask("/v1/chat/completions", raw=pieces)) == "qwen"


def filled(size: int) -> bytes:
    """A JSON body of a size in bytes, its model at the end as the OpenAI client writes it."""
    head, tail = b'{"text": "', b'", "model": "qwen2.5-14b"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


@pytest.mark.parametrize("size", [17 * 1024, MIB + 1, 5 * MIB, 32 * MIB], ids=str)
def test_large_bodies_choose_by_their_model(gateway: RunningGateway, size: int) -> None:
    reply = gateway.ask("/v1/chat/completions", raw=filled(size))
    assert (reply.status, pool_of(reply), reply.json["bytes"]) == (200, "qwen", size)


@pytest.mark.parametrize(("size", "chunked"), [(100 * MIB, False), (40 * MIB, True)], ids=["length", "chunked"])
def test_the_path_decides_for_bodies_that_are_not_read(gateway: RunningGateway, size: int, chunked: bool) -> None:
    body = filled(size)
    reply = gateway.ask("/qwen/v1/chat/completions", raw=in_pieces(body) if chunked else body)
    assert (reply.status, pool_of(reply), reply.json["bytes"]) == (200, "qwen", size)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(
    ("path", "size"), [("/v1/chat/completions", 32 * MIB + 1), ("/llama/v1/completions", 100 * MIB + 1)]
)
def test_bodies_above_the_limit_are_refused(
    gateway: RunningGateway, all_members: list[Member], path: str, size: int, chunked: bool
) -> None:
    reply = refused_body(gateway, path, size, chunked)
    assert (reply.status, reply.error["code"]) == (413, "body_too_large")
    assert "32 MiB" in reply.error["message"]
    assert not any(member.received for member in all_members)


def in_pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), MIB):
        yield body[start : start + MIB]


def refused_body(gateway: RunningGateway, path: str, size: int, chunked: bool) -> Reply:
    """nginx may answer and close before it has read everything, which an HTTP library reports as a broken pipe."""
    with socket.create_connection(("127.0.0.1", gateway.port), 30) as connection:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: g\r\n%s\r\n\r\n" % (path.encode(), framing))
        with contextlib.suppress(ConnectionError):
            for piece in in_pieces(filled(size)):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        return read_reply(connection)

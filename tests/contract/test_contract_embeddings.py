"""A pooling server with a model of bge-m3's architecture."""

from __future__ import annotations

import math

import pytest
from clause import Clause, Has
from running import Running
from wire import AUTHORIZED, ask, shape

pytestmark = pytest.mark.server("pooling")

MODEL = "bge-m3"
SHAPE = {
    "id": "str",
    "object": "str",
    "created": "int",
    "model": "str",
    "data": [{"index": "int", "object": "str", "embedding": ["float"]}],
    "usage": {
        "prompt_tokens": "int",
        "total_tokens": "int",
        "completion_tokens": "int",
        "prompt_tokens_details": "null",
    },
}


def embeddings(server: Running, texts: list[str]) -> list[list[float]]:
    body = ask(server, "POST", "/v1/embeddings", {"model": MODEL, "input": texts}, headers=AUTHORIZED).json()
    return [entry["embedding"] for entry in body["data"]]


def test_shape(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/embeddings", {"model": MODEL, "input": ["one", "two"]}, headers=AUTHORIZED)
    clause.check((answer.status, shape(answer.json())), (200, SHAPE))


def test_one_vector_for_each_text_in_order(clause: Clause, server: Running) -> None:
    body = ask(
        server,
        "POST",
        "/v1/embeddings",
        {"model": MODEL, "input": ["one", "a quite different and longer text", "one"]},
        headers=AUTHORIZED,
    ).json()
    first, second, third = (entry["embedding"] for entry in body["data"])
    # Vectors of random weights are near one another; those of the same text are nearer.
    alike = [max(abs(a - b) for a, b in zip(first, other, strict=True)) < 0.001 for other in (second, third)]
    clause.check(([entry["index"] for entry in body["data"]], alike), ([0, 1, 2], [False, True]))


def test_vectors_have_length_one(clause: Clause, server: Running) -> None:
    clause.check({round(math.hypot(*vector), 2) for vector in embeddings(server, ["one", "two"])}, {1.0})


def test_a_text_that_is_too_long(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/embeddings", {"model": MODEL, "input": "word " * 9000}, headers=AUTHORIZED)
    clause.check((answer.status, answer.json()["error"]["message"]), (400, Has("maximum context length is 8192")))


def test_chat_is_not_there(clause: Clause, server: Running) -> None:
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    clause.check(ask(server, "POST", "/v1/chat/completions", chat, headers=AUTHORIZED).status, 404)


def test_no_key_no_vectors(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "POST", "/v1/embeddings", {"model": MODEL, "input": "x"}).status, 401)


def test_it_needs_no_cache(clause: Clause, server: Running) -> None:
    clause.check("KV cache size" in server.text(), False)

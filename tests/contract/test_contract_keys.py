"""What --api-key protects, and what stays open: (status without a key, with a wrong one, with the right one)."""

from __future__ import annotations

from typing import Any

import pytest
from clause import Clause
from running import Running
from wire import AUTHORIZED, ask

pytestmark = pytest.mark.server("generating")

MODEL = "llama3.1-8b"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
CLOSED, OPEN = (401, 401, 200), (200, 200, 200)

PATHS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "GET /v1/models": (None, CLOSED),
    "POST /v1/chat/completions": (CHAT, CLOSED),
    "POST /v1/completions": ({"model": MODEL, "prompt": "x", "max_tokens": 1}, CLOSED),
    "GET /health": (None, OPEN),
    "GET /ping": (None, OPEN),
    "GET /version": (None, OPEN),
    "GET /load": (None, OPEN),
    "GET /metrics": (None, OPEN),
    "POST /tokenize": ({"model": MODEL, "prompt": "x"}, OPEN),
    "POST /detokenize": ({"model": MODEL, "tokens": [300]}, OPEN),
    # Full inference without a key: why a gateway has to be an allow-list of paths.
    "POST /invocations": (CHAT, OPEN),
    "GET /nope": (None, (404, 404, 404)),
    "GET /v1/nope": (None, (401, 401, 404)),
}


@pytest.mark.parametrize("path", PATHS)
def test_key(clause: Clause, server: Running, path: str) -> None:
    method, _, where = path.partition(" ")
    body, contract = PATHS[path]
    keys: list[dict[str, str]] = [{}, {"authorization": "Bearer wrong"}, AUTHORIZED]
    clause.check(tuple(ask(server, method, where, body, headers=key).status for key in keys), contract)


def test_the_refusal(clause: Clause, server: Running) -> None:
    answer = ask(server, "GET", "/v1/models")
    clause.check((answer.status, answer.json()), (401, {"error": "Unauthorized"}))

"""What is said to bad requests: (status, type, param, message)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from clause import Clause, Has
from running import Running
from wire import AUTHORIZED, ask

pytestmark = pytest.mark.server("generating")

MODEL = "llama3.1-8b"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
Contract = tuple[int, str, str | None, Any]


def too_many(name: str) -> str:
    return f"{name}=9000cannot be greater than max_model_len=max_total_tokens=8192. Please request fewer output tokens. (parameter={name}, value=9000)"


#: Name -> what differs from a good chat request (None removes a field), and the answer.
CHATS: dict[str, tuple[dict[str, Any], Contract]] = {
    "unknown model": ({"model": "gpt-4"}, (404, "NotFoundError", "model", "The model `gpt-4` does not exist.")),
    "no messages": (
        {"messages": None},
        (400, "Bad Request", None, Has("1 validation error", "'loc': ('body', 'messages')", "Field required")),
    ),
    "empty messages": (
        {"messages": []},
        (
            400,
            "BadRequestError",
            None,
            "Cannot apply chat template to an empty conversation. Provide at least one message.",
        ),
    ),
    "messages a text": (
        {"messages": "x"},
        (400, "Bad Request", None, Has("list_type", "Input should be a valid list")),
    ),
    "max_tokens a word": (
        {"max_tokens": "abc"},
        (400, "Bad Request", None, Has("int_parsing", "('body', 'max_tokens')")),
    ),
    "max_tokens above the context": (
        {"max_tokens": 9000},
        (400, "BadRequestError", "max_tokens", too_many("max_tokens")),
    ),
    "max_completion_tokens above": (
        {"max_completion_tokens": 9000},
        (400, "BadRequestError", "max_completion_tokens", too_many("max_completion_tokens")),
    ),
    "prompt and answer above": (
        {"max_tokens": 8190},
        (
            400,
            "BadRequestError",
            "input_tokens",
            Has(
                "This model's maximum context length is 8192 tokens. However, you requested 8190 output tokens",
                "(parameter=input_tokens",
            ),
        ),
    ),
    "tools without their switch": (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        (
            400,
            "BadRequestError",
            None,
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        ),
    ),
    "max_tokens 0": (
        {"max_tokens": 0},
        (400, "BadRequestError", "max_tokens", "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"),
    ),
    "temperature below 0": (
        {"temperature": -1},
        (
            400,
            "BadRequestError",
            "temperature",
            "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)",
        ),
    ),
    "top_p 0": (
        {"top_p": 0},
        (400, "BadRequestError", "top_p", "top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)"),
    ),
    "n 0": ({"n": 0}, (400, "BadRequestError", None, "n must be at least 1, got 0.")),
    "presence_penalty 3": (
        {"presence_penalty": 3},
        (400, "BadRequestError", None, "presence_penalty must be in [-2, 2], got 3.0."),
    ),
    "top_k -2": ({"top_k": -2}, (400, "BadRequestError", None, "top_k must be 0 (disable), or at least 1, got -2.")),
    "min_tokens above max_tokens": (
        {"min_tokens": 20},
        (400, "BadRequestError", None, "min_tokens must be less than or equal to max_tokens=8, got 20."),
    ),
    "unknown response format": (
        {"response_format": {"type": "nope"}},
        (400, "Bad Request", None, Has("literal_error", "'text', 'json_object' or 'json_schema'")),
    ),
    "stream options without a stream": (
        {"stream_options": {"include_usage": True}},
        (400, "Bad Request", "stream_options", Has("Stream options can only be defined when `stream=True`.")),
    ),
}


def error_of(answer: Any) -> Contract:
    error = answer.json()["error"]
    return (answer.status, error["type"], error["param"], error["message"])


@pytest.mark.parametrize("name", CHATS)
def test_chat(clause: Clause, server: Running, name: str) -> None:
    change, contract = CHATS[name]
    body = {key: value for key, value in {**CHAT, **change}.items() if value is not None}
    answer = ask(server, "POST", "/v1/chat/completions", body, headers=AUTHORIZED)
    clause.check(error_of(answer) if answer.status != 200 else 200, contract)


def test_the_code_is_the_status(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/chat/completions", {**CHAT, "model": "x"}, headers=AUTHORIZED)
    clause.check(
        (sorted(answer.json()), sorted(answer.json()["error"]), answer.json()["error"]["code"]),
        (["error"], ["code", "message", "param", "type"], 404),
    )


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_content_type(clause: Clause, server: Running, kind: str) -> None:
    headers = {**AUTHORIZED, **({"content-type": kind} if kind else {})}
    answer = ask(server, "POST", "/v1/chat/completions", raw=json.dumps(CHAT).encode(), headers=headers)
    clause.check(
        error_of(answer), (400, "Bad Request", None, Has("Unsupported Media Type: Only 'application/json' is allowed"))
    )


def test_content_type_with_a_charset(clause: Clause, server: Running) -> None:
    headers = {**AUTHORIZED, "content-type": "application/json; charset=utf-8"}
    clause.check(
        ask(server, "POST", "/v1/chat/completions", raw=json.dumps(CHAT).encode(), headers=headers).status, 200
    )


def test_broken_json(clause: Clause, server: Running) -> None:
    headers = {**AUTHORIZED, "content-type": "application/json"}
    answer = ask(server, "POST", "/v1/chat/completions", raw=b"{bad", headers=headers)
    clause.check(error_of(answer), (400, "Bad Request", None, Has("json_invalid", "JSON decode error")))


def test_a_list_instead_of_an_object(clause: Clause, server: Running) -> None:
    headers = {**AUTHORIZED, "content-type": "application/json"}
    answer = ask(server, "POST", "/v1/chat/completions", raw=b"[1]", headers=headers)
    clause.check(error_of(answer), (500, "InternalServerError", None, "'list' object has no attribute 'get'"))


def test_no_prompt(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/completions", {"model": MODEL}, headers=AUTHORIZED)
    clause.check(
        error_of(answer),
        (400, "Bad Request", None, Has("Either prompt or prompt_embeds must be provided and non-empty.")),
    )


def test_unknown_path(clause: Clause, server: Running) -> None:
    answer = ask(server, "GET", "/nope")
    clause.check((answer.status, answer.json()), (404, {"detail": "Not Found"}))


def test_wrong_method(clause: Clause, server: Running) -> None:
    answer = ask(server, "GET", "/v1/chat/completions", headers=AUTHORIZED)
    clause.check((answer.status, answer.json()), (405, {"detail": "Method Not Allowed"}))


def test_after_all_of_this_it_is_healthy(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "GET", "/health").status, 200)

"""What each endpoint answers to a good request: status and shape."""

from __future__ import annotations

from typing import Any

import pytest
from clause import Clause, Like
from running import Running
from wire import AUTHORIZED, ask, shape

pytestmark = pytest.mark.server("generating")

MODEL = "llama3.1-8b"
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": 4,
    "temperature": 0,
    "ignore_eos": True,
}
COMPLETION = {"model": MODEL, "prompt": "Say hello.", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
USAGE = {"prompt_tokens": "int", "total_tokens": "int", "completion_tokens": "int", "prompt_tokens_details": "null"}
MESSAGE = {
    "role": "str",
    "content": "str",
    "refusal": "null",
    "annotations": "null",
    "audio": "null",
    "function_call": "null",
    "tool_calls": [],
    "reasoning": "null",
}
CHAT_SHAPE = {
    "id": "str",
    "object": "str",
    "created": "int",
    "model": "str",
    "choices": [
        {
            "index": "int",
            "message": MESSAGE,
            "logprobs": "null",
            "finish_reason": "str",
            "stop_reason": "null",
            "token_ids": "null",
        }
    ],
    "service_tier": "null",
    "system_fingerprint": "null",
    "usage": USAGE,
    "prompt_logprobs": "null",
    "prompt_token_ids": "null",
    "kv_transfer_params": "null",
}
COMPLETION_SHAPE = {
    "id": "str",
    "object": "str",
    "created": "int",
    "model": "str",
    "choices": [
        {
            "index": "int",
            "text": "str",
            "logprobs": "null",
            "finish_reason": "str",
            "stop_reason": "null",
            "token_ids": "null",
            "prompt_logprobs": "null",
            "prompt_token_ids": "null",
        }
    ],
    "service_tier": "null",
    "system_fingerprint": "null",
    "usage": USAGE,
    "kv_transfer_params": "null",
}


def test_health_is_200_and_empty(clause: Clause, server: Running) -> None:
    answer = ask(server, "GET", "/health")
    clause.check((answer.status, answer.body), (200, b""))


def test_ping(clause: Clause, server: Running) -> None:
    clause.check([ask(server, method, "/ping").status for method in ("GET", "POST")], [200, 200])


def test_version(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "GET", "/version").json(), {"version": "0.19.1"})


def test_load(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "GET", "/load").json(), {"server_load": 0})


def test_models(clause: Clause, server: Running) -> None:
    answer = ask(server, "GET", "/v1/models", headers=AUTHORIZED)
    card: dict[str, Any] = answer.json()["data"][0]
    observed = (
        answer.status,
        answer.json()["object"],
        sorted(card),
        card["id"],
        card["owned_by"],
        card["max_model_len"],
    )
    names = ["created", "id", "max_model_len", "object", "owned_by", "parent", "permission", "root"]
    clause.check(observed, (200, "list", names, MODEL, "vllm", 8192))


def test_chat_shape(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/chat/completions", CHAT, headers=AUTHORIZED)
    clause.check((answer.status, shape(answer.json())), (200, CHAT_SHAPE))


def test_chat_values(clause: Clause, server: Running) -> None:
    body = ask(server, "POST", "/v1/chat/completions", CHAT, headers=AUTHORIZED).json()
    choice = body["choices"][0]
    observed = [body["id"], body["object"], body["model"], choice["finish_reason"], body["usage"]["completion_tokens"]]
    clause.check(observed, [Like("chatcmpl-[0-9a-f-]+"), "chat.completion", MODEL, "length", 4])


def test_completion_shape(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/completions", COMPLETION, headers=AUTHORIZED)
    clause.check((answer.status, shape(answer.json())), (200, COMPLETION_SHAPE))


def test_completion_values(clause: Clause, server: Running) -> None:
    body = ask(server, "POST", "/v1/completions", COMPLETION, headers=AUTHORIZED).json()
    observed = [
        body["id"],
        body["object"],
        body["model"],
        body["choices"][0]["finish_reason"],
        body["usage"]["completion_tokens"],
    ]
    clause.check(observed, [Like("cmpl-[0-9a-f-]+"), "text_completion", MODEL, "length", 4])


def test_a_greedy_answer_is_the_same_twice(clause: Clause, server: Running) -> None:
    texts = {
        ask(server, "POST", "/v1/completions", COMPLETION, headers=AUTHORIZED).json()["choices"][0]["text"]
        for _ in range(3)
    }
    clause.check(len(texts), 1)


def test_two_prompts_give_two_choices(clause: Clause, server: Running) -> None:
    body = ask(server, "POST", "/v1/completions", {**COMPLETION, "prompt": ["a", "b"]}, headers=AUTHORIZED).json()
    clause.check([choice["index"] for choice in body["choices"]], [0, 1])


def test_without_a_model_the_served_one_answers(clause: Clause, server: Running) -> None:
    body = {name: value for name, value in CHAT.items() if name != "model"}
    answer = ask(server, "POST", "/v1/chat/completions", body, headers=AUTHORIZED)
    clause.check((answer.status, answer.json().get("model")), (200, MODEL))


def test_json_schema_is_kept(clause: Clause, server: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"type": "string", "enum": ["cat"]}},
        "required": ["kind"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}}
    answer = ask(
        server,
        "POST",
        "/v1/chat/completions",
        {**CHAT, "max_tokens": 60, "ignore_eos": False, "response_format": wanted},
        headers=AUTHORIZED,
    )
    text = "".join(answer.json()["choices"][0]["message"]["content"].split())
    # Random weights may write white space until the tokens are used up: what there is must be the beginning of the only right answer.
    clause.check((answer.status, text[:1], '{"kind":"cat"}'.startswith(text)), (200, "{", True))


def test_tokenize(clause: Clause, server: Running) -> None:
    body = ask(server, "POST", "/tokenize", {"model": MODEL, "prompt": "a b"}).json()
    observed = (sorted(body), body["max_model_len"], body["count"] == len(body["tokens"]))
    clause.check(observed, (["count", "max_model_len", "token_strs", "tokens"], 8192, True))


def test_detokenize(clause: Clause, server: Running) -> None:
    tokens = ask(server, "POST", "/tokenize", {"model": MODEL, "prompt": "a b", "add_special_tokens": False}).json()[
        "tokens"
    ]
    clause.check(ask(server, "POST", "/detokenize", {"model": MODEL, "tokens": tokens}).json(), {"prompt": "a b"})


def test_a_pooling_path_is_not_there(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/embeddings", {"model": MODEL, "input": "x"}, headers=AUTHORIZED)
    clause.check((answer.status, answer.json()), (404, {"detail": "Not Found"}))

"""How a stream is framed: events, their order, its end."""

from __future__ import annotations

from typing import Any

import pytest
from clause import Clause
from running import Running
from wire import AUTHORIZED, Answer, ask, chunks, events

pytestmark = pytest.mark.server("generating")

MODEL = "llama3.1-8b"
SAME = {"max_tokens": 5, "temperature": 0, "ignore_eos": True, "stream": True}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], **SAME}
COMPLETION = {"model": MODEL, "prompt": "Say hello.", **SAME}
WITH_USAGE = {"stream_options": {"include_usage": True}}


def chat(server: Running, **change: Any) -> Answer:
    return ask(server, "POST", "/v1/chat/completions", {**CHAT, **change}, headers=AUTHORIZED)


def test_headers(clause: Clause, server: Running) -> None:
    answer = chat(server)
    observed = (
        answer.status,
        answer.headers["content-type"],
        answer.headers.get("transfer-encoding"),
        "x-accel-buffering" in answer.headers,
    )
    # Nothing tells nginx not to collect it: the gateway has to be told (proxy_buffering off).
    clause.check(observed, (200, "text/event-stream; charset=utf-8", "chunked", False))


def test_every_event_is_one_data_line(clause: Clause, server: Running) -> None:
    *data, end = events(chat(server))
    clause.check(
        (end, {event.count("\n") for event in data}, all(event.startswith("data: ") for event in data)), ("", {0}, True)
    )


def test_it_ends_with_done(clause: Clause, server: Running) -> None:
    clause.check(chat(server).text()[-14:], "data: [DONE]\n\n")


def test_the_first_chunk_has_the_role(clause: Clause, server: Running) -> None:
    clause.check(chunks(chat(server))[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})


def test_only_the_last_chunk_has_a_finish_reason(clause: Clause, server: Running) -> None:
    found = [chunk["choices"][0]["finish_reason"] for chunk in chunks(chat(server))]
    clause.check((set(found[:-1]), found[-1]), ({None}, "length"))


def test_the_pieces_are_the_whole(clause: Clause, server: Running) -> None:
    pieces = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks(chat(server)))
    whole = ask(server, "POST", "/v1/chat/completions", {**CHAT, "stream": False}, headers=AUTHORIZED).json()
    clause.check(pieces == whole["choices"][0]["message"]["content"] and bool(pieces), True)


def test_usage_comes_last_and_without_choices(clause: Clause, server: Running) -> None:
    last = chunks(chat(server, **WITH_USAGE))[-1]
    clause.check(
        (last["choices"], last["usage"]["completion_tokens"], sorted(last)),
        ([], 5, ["choices", "created", "id", "model", "object", "usage"]),
    )


def test_without_asking_there_is_no_usage(clause: Clause, server: Running) -> None:
    clause.check([chunk.get("usage") for chunk in chunks(chat(server)) if chunk.get("usage")], [])


def test_one_id_and_one_model(clause: Clause, server: Running) -> None:
    found = chunks(chat(server))
    clause.check(
        (
            len({chunk["id"] for chunk in found}),
            {chunk["model"] for chunk in found},
            {chunk["object"] for chunk in found},
        ),
        (1, {MODEL}, {"chat.completion.chunk"}),
    )


def test_completions_stream_texts(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/completions", {**COMPLETION, **WITH_USAGE}, headers=AUTHORIZED)
    found = chunks(answer)
    observed = (
        {chunk["object"] for chunk in found},
        found[-2]["choices"][0]["finish_reason"],
        found[-1]["choices"],
        events(answer)[-2],
    )
    clause.check(observed, ({"text_completion"}, "length", [], "data: [DONE]"))


def test_an_error_before_the_first_token_is_no_stream(clause: Clause, server: Running) -> None:
    answer = chat(server, max_tokens=99999)
    clause.check((answer.status, answer.headers["content-type"]), (400, "application/json"))

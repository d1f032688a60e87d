"""What Stoker needs of any engine behind the OpenAI interface: asked of all of them, vLLM or not."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from clause import Clause
from command_lines import CommandLines
from running import Running
from servers import Servers
from subjects import Subject
from wire import AUTHORIZED, ask, chunks

MODEL = "llama3.1-8b"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4, "temperature": 0}
PATH = "/v1/chat/completions"


def text_of(chunk: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


@pytest.mark.server("generating")
def test_until_it_is_ready(clause: Clause, server: Running) -> None:
    clause.check(server.outcomes, ["refused", 200])


@pytest.mark.server("generating")
def test_health_needs_no_key(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "GET", "/health").status, 200)


@pytest.mark.server("generating")
def test_models(clause: Clause, server: Running) -> None:
    answer = ask(server, "GET", "/v1/models", headers=AUTHORIZED)
    clause.check(
        (answer.status, [one["id"] for one in answer.json()["data"]] if answer.status == 200 else None), (200, [MODEL])
    )


@pytest.mark.server("generating")
def test_chat(clause: Clause, server: Running) -> None:
    body = ask(server, "POST", PATH, CHAT, headers=AUTHORIZED).json()
    choice = body["choices"][0]
    observed = (
        body["object"],
        choice["message"]["role"],
        bool(choice["message"]["content"]),
        choice["finish_reason"],
        body["usage"]["completion_tokens"],
    )
    clause.check(observed, ("chat.completion", "assistant", True, "length", 4))


@pytest.mark.server("generating")
def test_the_answer_names_the_model(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "POST", PATH, CHAT, headers=AUTHORIZED).json()["model"], MODEL)


@pytest.mark.server("generating")
def test_a_stream_is_the_whole_in_pieces(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", PATH, {**CHAT, "stream": True}, headers=AUTHORIZED)
    whole = ask(server, "POST", PATH, CHAT, headers=AUTHORIZED).json()["choices"][0]["message"]["content"]
    observed = (
        answer.headers["content-type"].partition(";")[0],
        "".join(map(text_of, chunks(answer))) == whole,
        len(chunks(answer)) > 2,
    )
    clause.check(observed, ("text/event-stream", True, True))


@pytest.mark.server("generating")
def test_a_stream_says_why_it_ends(clause: Clause, server: Running) -> None:
    found = chunks(ask(server, "POST", PATH, {**CHAT, "stream": True}, headers=AUTHORIZED))
    clause.check(
        [choice.get("finish_reason") for chunk in found for choice in chunk["choices"] if choice.get("finish_reason")],
        ["length"],
    )


@pytest.mark.server("generating")
def test_a_stream_ends_with_done(clause: Clause, server: Running) -> None:
    text = ask(server, "POST", PATH, {**CHAT, "stream": True}, headers=AUTHORIZED).text()
    clause.check(text.endswith("data: [DONE]\n\n"), True)


@pytest.mark.server("generating")
def test_key(clause: Clause, server: Running) -> None:
    keys: list[dict[str, str]] = [{}, {"authorization": "Bearer wrong"}, AUTHORIZED]
    clause.check([ask(server, "POST", PATH, CHAT, headers=key).status for key in keys], [401, 401, 200])


@pytest.mark.server("generating")
@pytest.mark.parametrize("name", ["unknown model", "broken JSON", "no messages", "unknown path", "wrong method"])
def test_refusals(clause: Clause, server: Running, name: str) -> None:
    """Statuses alone: the words are each engine's own."""
    json_headers = {**AUTHORIZED, "content-type": "application/json"}
    status, contract = {
        "unknown model": lambda: (
            ask(server, "POST", PATH, {**CHAT, "model": "gpt-4"}, headers=AUTHORIZED).status,
            404,
        ),
        "broken JSON": lambda: (ask(server, "POST", PATH, raw=b"{bad", headers=json_headers).status, 400),
        "no messages": lambda: (ask(server, "POST", PATH, {"model": MODEL}, headers=AUTHORIZED).status, 400),
        "unknown path": lambda: (ask(server, "GET", "/nope", headers=AUTHORIZED).status, 404),
        "wrong method": lambda: (ask(server, "GET", PATH, headers=AUTHORIZED).status, 405),
    }[name]()
    clause.check(status, contract)


@pytest.mark.server("generating")
def test_metrics_need_no_key(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "GET", "/metrics").status, 200)


@pytest.mark.server("stopping")
def test_sigterm_when_idle(clause: Clause, servers: Servers) -> None:
    def stop(running: Running, subject: Subject) -> int:
        running.signal(signal.SIGTERM)
        return running.wait_exit()

    clause.check(servers.once("stopping", stop), 0)


@pytest.mark.parametrize("name", ["an unknown argument", "a model that is not there"])
def test_ends(clause: Clause, subject: Subject, command_lines: CommandLines, name: str) -> None:
    words, contract = {
        "an unknown argument": (subject.unknown_argument, 2),
        "a model that is not there": (subject.no_model, 1),
    }[name]
    code, _ = command_lines.end(words, (subject.unknown_argument, subject.no_model))
    clause.check(code, contract)

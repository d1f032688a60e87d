"""What the web server in front of an engine does: routes and pages, other origins, slashes, and connections after a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from clause import Clause, Has, Like
from running import Running
from wire import AUTHORIZED, ask

pytestmark = pytest.mark.server("generating")

MODEL = "llama3.1-8b"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
ROUTES = [
    "GET /health",
    "GET /load",
    "GET /metrics",
    "GET /ping",
    "GET /v1/models",
    "GET /v1/responses/{response_id}",
    "GET /version",
    "POST /detokenize",
    "POST /inference/v1/generate",
    "POST /invocations",
    "POST /is_scaling_elastic_ep",
    "POST /ping",
    "POST /scale_elastic_ep",
    "POST /tokenize",
    "POST /v1/chat/completions",
    "POST /v1/chat/completions/batch",
    "POST /v1/chat/completions/render",
    "POST /v1/completions",
    "POST /v1/completions/render",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "POST /v1/responses",
    "POST /v1/responses/{response_id}/cancel",
]
"""Of a generating server. Stoker's gateway lets three of them through; a new one is new surface for whoever reaches an engine directly."""

POOLING_ROUTES = [
    "GET /health",
    "GET /load",
    "GET /metrics",
    "GET /ping",
    "GET /v1/models",
    "GET /version",
    "POST /detokenize",
    "POST /invocations",
    "POST /ping",
    "POST /pooling",
    "POST /rerank",
    "POST /score",
    "POST /tokenize",
    "POST /v1/embeddings",
    "POST /v1/rerank",
    "POST /v1/score",
    "POST /v2/embed",
    "POST /v2/rerank",
]


def routes(server: Running) -> list[str]:
    paths = ask(server, "GET", "/openapi.json").json()["paths"]
    return sorted(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)


def test_routes(clause: Clause, server: Running) -> None:
    clause.check(routes(server), ROUTES)


@pytest.mark.server("pooling")
def test_routes_of_a_pooling_server(clause: Clause, server: Running) -> None:
    clause.check(routes(server), POOLING_ROUTES)


@pytest.mark.server("pooling")
@pytest.mark.parametrize("path", ["/pooling", "/score", "/rerank", "/v1/rerank"])
def test_open_without_a_key_on_a_pooling_server(clause: Clause, server: Running, path: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/pooling": {"input": "x"},
        "/score": {"text_1": "a", "text_2": "b"},
        "/rerank": {"query": "a", "documents": ["b"]},
    }
    body = {"model": "bge-m3", **bodies[path.removeprefix("/v1")]}
    clause.check(ask(server, "POST", path, body).status, 401 if path.startswith("/v1") else 200)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_pages_are_open(clause: Clause, server: Running, path: str) -> None:
    answers = [ask(server, method, path) for method in ("GET", "HEAD")]
    kind = "application/json" if path.endswith("json") else "text/html"
    observed = [(answer.status, answer.headers["content-type"].partition(";")[0]) for answer in answers]
    clause.check(observed, [(200, kind), (200, kind)])


def test_head_is_no_get(clause: Clause, server: Running) -> None:
    """A health check by HEAD sees an engine that is never healthy."""
    answer = ask(server, "HEAD", "/health")
    clause.check((answer.status, answer.headers.get("allow")), (405, "GET"))


def test_options_needs_no_key(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "OPTIONS", "/v1/models").status, 405)


@pytest.mark.parametrize(
    "key", ["Bearer secret", "bearer secret", "Bearer  secret", "Basic secret", "secret", "x-api-key"]
)
def test_forms_of_the_key(clause: Clause, server: Running, key: str) -> None:
    headers = {"x-api-key": "secret"} if key == "x-api-key" else {"authorization": key}
    good = key.lower() == "bearer secret"
    clause.check(ask(server, "GET", "/v1/models", headers=headers).status, 200 if good else 401)


def test_another_origin(clause: Clause, server: Running) -> None:
    """A page of any site may read the answers, where a browser reaches the engine."""
    answer = ask(server, "GET", "/health", headers={"origin": "http://elsewhere.test"})
    clause.check(answer.headers.get("access-control-allow-origin"), "*")


def test_a_browser_that_asks_before(clause: Clause, server: Running) -> None:
    headers = {"origin": "http://elsewhere.test", "access-control-request-method": "POST"}
    answer = ask(server, "OPTIONS", "/v1/chat/completions", headers=headers)
    clause.check((answer.status, answer.text()), (200, "OK"))


def test_a_slash_too_many(clause: Clause, server: Running) -> None:
    answer = ask(server, "GET", "/health/")
    clause.check((answer.status, answer.headers.get("location")), (307, Like(r"http://127\.0\.0\.1:\d+/health")))


#: Name -> request, status, whether the connection takes another request afterwards.
AFTER: dict[str, tuple[dict[str, Any] | bytes, int, bool]] = {
    "a good request": (CHAT, 200, True),
    "an unknown model": ({**CHAT, "model": "x"}, 404, True),
    "a missing field": ({"model": MODEL}, 400, True),
    "broken JSON": (b"{bad", 400, True),
    "a value out of range": ({**CHAT, "temperature": -1}, 400, False),
    "more tokens than fit": ({**CHAT, "max_tokens": 9000}, 400, False),
    "a list instead of an object": (b"[1]", 500, False),
}


@pytest.mark.parametrize("name", AFTER)
def test_the_connection_after(clause: Clause, server: Running, name: str) -> None:
    """Where no handler of vLLM's own takes the exception, the connection ends without a `connection: close` before."""
    given, status, kept = AFTER[name]
    raw = given if isinstance(given, bytes) else json.dumps(given).encode()
    headers = {**AUTHORIZED, "content-type": "application/json"}
    answer = ask(server, "POST", "/v1/chat/completions", raw=raw, headers=headers, again=True)
    clause.check((answer.status, answer.kept, answer.headers.get("connection")), (status, kept, None))


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_tokens_for_an_unknown_model(clause: Clause, server: Running, path: str) -> None:
    clause.check(ask(server, "POST", path, {"model": "x", "prompt": "x", "tokens": [300]}).status, 404)


def test_invocations_without_anything_to_do(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/invocations", {"model": MODEL, "input": "x"})
    text = "Cannot find suitable handler for request. Expected one of: ['ChatCompletionRequest', 'CompletionRequest']"
    clause.check((answer.status, answer.json()["error"]["message"]), (400, text))


def test_a_body_of_null(clause: Clause, server: Running) -> None:
    headers = {**AUTHORIZED, "content-type": "application/json"}
    answer = ask(server, "POST", "/v1/chat/completions", raw=b"null", headers=headers)
    clause.check((answer.status, answer.json()["error"]["message"]), (400, Has("'loc': ('body',)", "Field required")))


def test_a_body_that_is_no_text(clause: Clause, server: Running) -> None:
    headers = {**AUTHORIZED, "content-type": "application/json"}
    answer = ask(server, "POST", "/v1/chat/completions", raw=b'{"model": "\xff"}', headers=headers)
    clause.check((answer.status, answer.json()), (400, {"detail": "There was an error parsing the body"}))


def test_log_probabilities_by_halves(clause: Clause, server: Running) -> None:
    answer = ask(server, "POST", "/v1/chat/completions", {**CHAT, "top_logprobs": 2}, headers=AUTHORIZED)
    error = answer.json().get("error", {})
    text = "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)"
    clause.check(
        (answer.status, error.get("type"), error.get("param"), error.get("message")),
        (400, "Bad Request", "top_logprobs", Has("value_error", text)),
    )

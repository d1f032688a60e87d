"""Where the gateway sends requests: real nginx with the default fleet's files, small members on 127.0.0.1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gateway_members import Member
from gateway_process import RunningGateway, pool_of, running_gateway

from stoker.spec.gateway import Gateway, Pool

LLAMA = {"model": "llama3.1-8b", "messages": []}
QWEN = {"model": "qwen2.5-14b", "messages": []}
BGE = {"model": "bge-m3", "input": "text"}
BGE_LATEST = {"model": "bge-m3:latest", "input": "text"}
NO_MODEL: dict[str, object] = {"messages": []}


@pytest.mark.parametrize(
    ("path", "body", "pool", "target"),
    [
        ("/v1/chat/completions", LLAMA, "llama", "/v1/chat/completions"),
        ("/v1/chat/completions", QWEN, "qwen", "/v1/chat/completions"),
        ("/v1/chat/completions", NO_MODEL, "llama", "/v1/chat/completions"),
        ("/v1/chat/completions", {"model": None}, "llama", "/v1/chat/completions"),
        ("/v1/chat/completions", {"model": ""}, "llama", "/v1/chat/completions"),
        ("/v1/completions", LLAMA, "llama", "/v1/completions"),
        ("/v1/completions", QWEN, "qwen", "/v1/completions"),
        ("/v1/completions?api-version=1", QWEN, "qwen", "/v1/completions"),
        ("/v1/embeddings", BGE, "ollama", "/v1/embeddings"),
        ("/v1/embeddings", BGE_LATEST, "ollama", "/v1/embeddings"),
        ("/v1/embeddings", {"input": "text"}, "ollama", "/v1/embeddings"),
        ("/api/embeddings", BGE, "ollama", "/api/embeddings"),
        ("/api/embeddings", {"prompt": "text"}, "ollama", "/api/embeddings"),
        ("/api/embed", BGE_LATEST, "ollama", "/api/embed"),
        ("/embed/v1/embeddings", BGE, "ollama", "/v1/embeddings"),
        ("/embed/api/embeddings", BGE, "ollama", "/api/embeddings"),
        ("/embed/api/embed", NO_MODEL, "ollama", "/api/embed"),
        ("/llama/v1/chat/completions", LLAMA, "llama", "/v1/chat/completions"),
        ("/llama/v1/chat/completions", NO_MODEL, "llama", "/v1/chat/completions"),
        ("/llama/v1/completions", LLAMA, "llama", "/v1/completions"),
        ("/qwen/v1/chat/completions", QWEN, "qwen", "/v1/chat/completions"),
        ("/qwen/v1/chat/completions", NO_MODEL, "qwen", "/v1/chat/completions"),
        ("/qwen/v1/completions", QWEN, "qwen", "/v1/completions"),
    ],
)
def test_post_reaches_its_pool(gateway: RunningGateway, path: str, body: object, pool: str, target: str) -> None:
    reply = gateway.ask(path, body)
    assert reply.status == 200, reply
    assert pool_of(reply) == pool
    assert reply.json["path"] == target


@pytest.mark.parametrize(
    ("path", "pool", "target"),
    [
        ("/embed/api/tags", "ollama", "/api/tags"),
        ("/embed/api/version", "ollama", "/api/version"),
    ],
)
def test_get_reaches_its_pool(gateway: RunningGateway, path: str, pool: str, target: str) -> None:
    reply = gateway.ask(path)
    assert (reply.status, pool_of(reply), reply.json["path"]) == (200, pool, target)


def test_models_under_a_prefix_are_the_engines_own(gateway: RunningGateway) -> None:
    assert "qwen2.5-14b" in [entry["id"] for entry in gateway.ask("/qwen/v1/models").json["data"]]


def test_models_of_all_pools_are_listed_once(gateway: RunningGateway) -> None:
    reply = gateway.ask("/v1/models")
    assert (reply.status, reply.json["object"]) == (200, "list")
    assert [entry["id"] for entry in reply.json["data"]] == ["bge-m3", "llama3.1-8b", "qwen2.5-14b"]
    assert all(entry["object"] == "model" and entry["owned_by"] for entry in reply.json["data"])


def test_ready_when_every_pool_answers(gateway: RunningGateway) -> None:
    reply = gateway.ask("/ready")
    assert (reply.status, reply.json) == (200, {"status": "ready", "pools": ["embed", "llama", "qwen"]})


def test_health_is_plain_and_names_the_configuration(gateway: RunningGateway) -> None:
    reply = gateway.ask("/health")
    assert (reply.status, reply.body) == (200, b"OK")
    assert reply.headers["x-stoker-config"] == gateway.identity
    assert len(gateway.identity) == 12


def test_llm_gateway_routes_without_embeddings(llm_gateway: RunningGateway) -> None:
    assert pool_of(llm_gateway.ask("/v1/chat/completions", QWEN)) == "qwen"
    assert pool_of(llm_gateway.ask("/v1/chat/completions", LLAMA)) == "llama"
    assert pool_of(llm_gateway.ask("/v1/chat/completions", NO_MODEL)) == "llama"
    assert pool_of(llm_gateway.ask("/qwen/v1/chat/completions", NO_MODEL)) == "qwen"
    assert pool_of(llm_gateway.ask("/llama/v1/completions", NO_MODEL)) == "llama"
    assert llm_gateway.ask("/health").body == b"OK"
    assert llm_gateway.ask("/v1/embeddings", BGE).status == 404
    assert llm_gateway.ask("/v1/chat/completions", BGE).status == 404


# --- the model ---


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "names"),
    [
        ("/v1/chat/completions", {"model": "gpt-4"}, 404, "model_not_found", "llama3.1-8b, qwen2.5-14b"),
        ("/v1/embeddings", {"model": "gpt-4"}, 404, "model_not_found", "bge-m3"),
        ("/v1/chat/completions", BGE, 400, "wrong_path", "/v1/embeddings or /embed/v1/embeddings"),
        ("/v1/embeddings", LLAMA, 400, "wrong_path", "/v1/chat/completions or /llama/v1/chat/completions"),
        ("/api/embed", QWEN, 400, "wrong_path", "/v1/chat/completions or /qwen/v1/chat/completions"),
        ("/llama/v1/chat/completions", QWEN, 404, "model_not_found", "/qwen/v1/chat/completions"),
        ("/llama/v1/completions", QWEN, 404, "model_not_found", "/qwen/v1/completions"),
        ("/qwen/v1/chat/completions", LLAMA, 404, "model_not_found", "/llama/v1/chat/completions"),
        ("/qwen/v1/chat/completions", BGE, 404, "model_not_found", "/embed/v1/embeddings"),
        ("/embed/api/embed", LLAMA, 404, "model_not_found", "/llama/v1/chat/completions"),
        ("/llama/v1/chat/completions", {"model": "gpt-4"}, 404, "model_not_found", "llama3.1-8b"),
    ],
)
def test_model_in_the_wrong_place(
    gateway: RunningGateway, all_members: list[Member], path: str, body: object, status: int, code: str, names: str
) -> None:
    reply = gateway.ask(path, body)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (status, code, "model")
    assert names in reply.error["message"]
    assert not any(member.received for member in all_members)


@pytest.mark.parametrize(
    "model",
    [
        "__proto__",
        "constructor",
        "toString",
        "hasOwnProperty",
        "pool_llama",
        "llama",
        "@member_failed",
        "http://127.0.0.1:22/",
        "llama3.1-8b\r\nX-Injected: 1",
        "llama3.1-8b\0",
        "llama3.1-8b ",
        "LLAMA3.1-8B",
        "llama3.1-8b:latest",
        "bge-m3:latest:latest",
        "bge-m3:567m",
        "\ud800",
        "x" * 100_000,
        "{{7*7}}",
        "../qwen",
        "qwen",
    ],
)
def test_hostile_model_names_are_unknown(gateway: RunningGateway, model: str) -> None:
    reply = gateway.ask("/v1/chat/completions", {"model": model})
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert "x-injected" not in reply.headers
    assert len(reply.body) < 1000
    logged = gateway.log("/v1/chat/completions")["model"]
    assert logged.isascii()
    assert len(logged) <= 96


@pytest.mark.parametrize("model", [5, True, ["llama3.1-8b"], {"name": "llama3.1-8b"}])
def test_model_must_be_a_string(gateway: RunningGateway, model: object) -> None:
    reply = gateway.ask("/v1/chat/completions", {"model": model})
    assert (reply.status, reply.error["code"]) == (400, "invalid_model")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed", "/embed/api/embeddings"])
@pytest.mark.parametrize(
    "raw",
    [
        b'{"model": "bge-m3", "Model": "llama3.1-8b"}',
        b'{"MODEL": "llama3.1-8b"}',
        b'{"model": "llama3.1-8b", "model": null}',
        b'{"mod\\u0045l": "llama3.1-8b"}',
    ],
)
def test_a_body_in_which_ollama_would_find_another_model(
    gateway: RunningGateway, all_members: list[Member], path: str, raw: bytes
) -> None:
    """Go reads a field's name in any case, and a null leaves what an earlier field said."""
    reply = gateway.ask(path, raw=raw)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_model", "model")
    assert not any(member.received for member in all_members)


def test_prompt_that_mentions_another_model_does_not_matter(gateway: RunningGateway) -> None:
    body = {"messages": [{"role": "user", "content": 'use "model": "qwen2.5-14b"'}], "model": "llama3.1-8b"}
    assert pool_of(gateway.ask("/v1/chat/completions", body)) == "llama"


def test_a_path_whose_default_is_elsewhere_asks_for_a_model(all_members: list[Member], tmp_path: Path) -> None:
    """The default embeddings pool is a vLLM, which has no /api/embed; another pool is an Ollama, which has."""
    pools = (
        Pool(name="fast", model="llama3.1-8b", kind="embeddings", default=True),
        Pool(name="old", model="bge-m3", kind="embeddings"),
        Pool(name="older", model="qwen2.5-14b", kind="embeddings"),
    )
    gateway = Gateway(container="g", port=1, config_file="nginx.conf", pools=pools)
    members = [replace(member, engine="ollama") if member.name == "qwen" else member for member in all_members]
    with running_gateway(gateway, members, tmp_path / "etc") as running:
        assert pool_of(running.ask("/v1/embeddings", {"input": "text"})) == "llama"
        assert pool_of(running.ask("/api/embed", {"model": "qwen2.5-14b:latest"})) == "qwen"
        reply = running.ask("/api/embed", {"input": "text"})
        assert (reply.status, reply.error["code"]) == (400, "missing_model")
        assert "bge-m3, qwen2.5-14b" in reply.error["message"]
        reply = running.ask("/api/embed", {"model": "llama3.1-8b"})
        assert (reply.status, reply.error["code"]) == (400, "wrong_path")
        assert "/v1/embeddings" in reply.error["message"]

"""The first real request and the check of its answer."""

from __future__ import annotations

import json

import pytest

from stoker.ready.question import Answer, judge, question
from stoker.ready.target import Target

CHAT = Target("gpu10", "vllm_a", "vllm", "vllm_a", 11401, "llama3.1-8b")
POOL = Target("gpu10", "vllm_e", "vllm", "vllm_e", 8000, "bge-m3", expect_dimensions=1024)
OLLAMA = Target("gpu65", "ollama_0", "ollama", "ollama_0", 11434, "bge-m3", expect_dimensions=1024)
OLLAMA_CPU = Target("box", "ollama", "ollama", "ollama", 11434, "bge-m3", gpu_required=False)

RESIDENT = {"models": [{"name": "bge-m3:latest", "size": 1000, "size_vram": 1000}]}


def answer(body: object, then: object = RESIDENT, code: int = 200) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return Answer(code, 0.1, "", text, json.dumps(then))


def told(target: Target, one: Answer) -> str:
    judgement = judge(target, one)
    return judgement.wrong.id if judgement.wrong else "good"


def test_questions() -> None:
    assert question(CHAT).url == "http://127.0.0.1:11401/v1/completions"
    assert json.loads(question(CHAT).body)["model"] == "llama3.1-8b"
    assert question(POOL).url.endswith("/v1/embeddings")
    assert question(POOL).then_url == ""
    assert question(OLLAMA).url.endswith("/api/embed")
    assert question(OLLAMA).then_url == "http://127.0.0.1:11434/api/ps"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" Paris.", "good"),
        ("!!!!!!", "repeated-character"),
        ("! ! !", "repeated-character"),
        ("", "empty-answer"),
        (" \n", "empty-answer"),
    ],
)
def test_completions(text: str, name: str) -> None:
    assert told(CHAT, answer({"choices": [{"text": text}]})) == name


@pytest.mark.parametrize(
    ("vector", "name"),
    [
        ([0.1] * 1024, "good"),
        ([0.1] * 384, "wrong-dimension"),
        ([0.0] * 1024, "embedding-zero"),
        ([0.1] * 1023 + [float("nan")], "embedding-not-finite"),
        ([0.1] * 1023 + [float("inf")], "embedding-not-finite"),
        (["x"] * 1024, "not-json"),
    ],
)
def test_embeddings(vector: list[object], name: str) -> None:
    assert told(OLLAMA, answer({"embeddings": [vector]})) == name
    assert told(POOL, answer({"data": [{"embedding": vector}]})) == name


def test_where_ollama_keeps_the_model() -> None:
    good = {"embeddings": [[0.1] * 1024]}
    part = {"models": [{"name": "bge-m3:latest", "size": 1000, "size_vram": 750}]}
    none = {"models": [{"name": "bge-m3:latest", "size": 1000, "size_vram": 0}]}
    assert judge(OLLAMA, answer(good, part)).note == "25 % of the model is on the CPU"
    assert told(OLLAMA, answer(good, none)) == "ollama-on-cpu"
    assert told(OLLAMA_CPU, answer(good, none)) == "good"
    assert told(OLLAMA, answer(good, {"models": []})) == "ollama-not-resident"
    assert told(OLLAMA, answer(good, "gibberish")) == "not-json"


@pytest.mark.parametrize(
    ("target", "code", "body", "name", "final"),
    [
        (CHAT, 0, "", "no-answer", False),
        (CHAT, 500, "Internal Server Error", "request-refused", False),
        (CHAT, 404, '{"error":{"message":"The model `x` does not exist."}}', "wrong-model-name", True),
        (CHAT, 401, '{"error":"Unauthorized"}', "key-needed", True),
        (CHAT, 400, '{"error":"bad"}', "request-refused", True),
        (CHAT, 200, "<html>", "not-json", True),
        (CHAT, 200, "{}", "not-json", True),
        (OLLAMA, 404, '{"error":"model \\"bge-m3\\" not found, try pulling it first"}', "ollama-model-missing", True),
        (OLLAMA, 500, '{"error":"llama-server process has terminated: exit status 1"}', "ollama-runner-died", True),
        (OLLAMA, 500, '{"error":"embedding contains NaN or Inf values"}', "embedding-not-finite", True),
    ],
)
def test_refusals(target: Target, code: int, body: str, name: str, final: bool) -> None:
    judgement = judge(target, answer(body, code=code))
    assert judgement.wrong is not None
    assert (judgement.wrong.id, judgement.final) == (name, final)

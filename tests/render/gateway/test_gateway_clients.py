"""The clients that people use: OpenAI's and Ollama's Python packages, and curl."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator

import ollama
import openai
import pytest
from gateway_members import Member
from gateway_process import RunningGateway, Start

HELLO: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


def client_of(gateway: RunningGateway, prefix: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}{prefix}/v1", api_key="unused", max_retries=0)


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with client_of(gateway) as client:
        yield client


# --- OpenAI's package ---


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="qwen2.5-14b", messages=HELLO)
    assert (answer.model, answer.choices[0].message.content) == ("qwen2.5-14b", "Yes.")
    assert client.completions.create(model="llama3.1-8b", prompt="Hello").model == "llama3.1-8b"


def test_chat_below_a_prefix(gateway: RunningGateway) -> None:
    with client_of(gateway, "/qwen") as client:
        assert client.chat.completions.create(model="qwen2.5-14b", messages=HELLO).model == "qwen2.5-14b"
        assert "qwen2.5-14b" in [model.id for model in client.models.list()]


def test_a_stream_comes_piece_by_piece(client: openai.OpenAI, all_members: list[Member]) -> None:
    """The member makes a piece only after the client has seen the one before."""
    member = all_members[-1]
    member.gate = threading.Semaphore(1)
    seen = []
    with client.chat.completions.create(model="qwen2.5-14b", messages=HELLO, stream=True) as stream:
        for piece in stream:
            seen.append(piece.choices[0].delta.content)
            member.gate.release()
    assert seen == ["piece 0", "piece 1", "piece 2"]


def test_leaving_a_stream_frees_the_member(client: openai.OpenAI, all_members: list[Member]) -> None:
    member = all_members[-1]
    member.gate = threading.Semaphore(1)
    with client.chat.completions.create(model="qwen2.5-14b", messages=HELLO, stream=True) as stream:
        next(iter(stream))
    assert member.aborted.wait(1.0), "the member was not told within a second"


@pytest.mark.parametrize("model", ["bge-m3", "bge-m3:latest"])
def test_embeddings(client: openai.OpenAI, model: str) -> None:
    assert client.embeddings.create(model=model, input=["text"]).data[0].embedding == [0.5, 0.25]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["bge-m3", "llama3.1-8b", "qwen2.5-14b"]


def test_refusals_are_the_packages_own_errors(client: openai.OpenAI, gateway: RunningGateway) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4", messages=HELLO)
    assert (unknown.value.code, unknown.value.param, unknown.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert "llama3.1-8b, qwen2.5-14b" in unknown.value.message
    assert unknown.value.request_id
    with pytest.raises(openai.BadRequestError) as elsewhere:
        client.chat.completions.create(model="bge-m3", messages=HELLO)
    assert elsewhere.value.code == "wrong_path"
    with pytest.raises(openai.NotFoundError) as path:
        client.responses.create(model="qwen2.5-14b", input="Hello")
    assert path.value.code == "unknown_path"
    with pytest.raises(openai.APIStatusError) as large:
        client.embeddings.create(model="bge-m3", input="x" * 33 * 1024 * 1024)
    assert (large.value.status_code, large.value.code) == (413, "body_too_large")


def test_a_pool_without_members_is_told_with_a_time_to_come_back(start: Start, all_members: list[Member]) -> None:
    """The package itself tries again after a 503; how soon, the header says."""
    absent = Member("absent", "qwen2.5-14b", port=1)
    others = [member for member in all_members if member.model != absent.model]
    with client_of(start([*others, absent])) as client, pytest.raises(openai.InternalServerError) as none:
        client.chat.completions.create(model="qwen2.5-14b", messages=HELLO)
    assert (none.value.status_code, none.value.code) == (503, "no_member_available")
    assert int(none.value.response.headers["retry-after"]) > 0


# --- Ollama's package ---


@pytest.mark.parametrize("prefix", ["", "/embed"])
@pytest.mark.parametrize("model", ["bge-m3", "bge-m3:latest"])
def test_ollamas_package_embeds(gateway: RunningGateway, prefix: str, model: str) -> None:
    client = ollama.Client(host=f"http://127.0.0.1:{gateway.port}{prefix}")
    assert client.embed(model=model, input=["text"]).embeddings == [[0.5, 0.25]]
    assert client.embeddings(model=model, prompt="text").embedding == [0.5, 0.25]


def test_ollamas_package_manages_nothing(gateway: RunningGateway, all_members: list[Member]) -> None:
    client = ollama.Client(host=f"http://127.0.0.1:{gateway.port}/embed")
    assert list(client.list().models) == []
    before = [len(member.lines) for member in all_members]
    for refused in (
        lambda: client.pull("llama3"),
        lambda: client.delete("bge-m3"),
        lambda: client.copy("bge-m3", "other"),
        lambda: client.create("other", from_="bge-m3"),
        lambda: client.push("bge-m3"),
        lambda: client.show("bge-m3"),
        lambda: client.ps(),
        lambda: client.generate("bge-m3", "Hello"),
        lambda: client.embed("llama3", "text"),
    ):
        with pytest.raises(ollama.ResponseError) as error:
            refused()
        assert error.value.status_code == 404
    assert [len(member.lines) for member in all_members] == before


# --- curl ---


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "bge-m3", "input": "test"}),
        ("/v1/chat/completions", {"model": "llama3.1-8b", "messages": HELLO}),
        ("/qwen/v1/chat/completions", {"model": "qwen2.5-14b", "messages": HELLO}),
    ],
)
def test_curl(gateway: RunningGateway, path: str, body: dict[str, object]) -> None:
    command = ["curl", "--silent", "--show-error", "--fail", f"http://127.0.0.1:{gateway.port}{path}"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    assert json.loads(done.stdout)["model"] == body["model"]

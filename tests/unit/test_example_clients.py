"""The programs of examples/clients: against the simulated engines, and against answers that go wrong."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from double_processes import ROOT, Double, make_host, running, set_faults, start_ollama
from smoke_stand_in import Reply, StandIn, as_json
from support.commands import Done, run

CLIENTS = ROOT / "examples" / "clients"
PARIS = "Alice flew from Paris to Oslo."


class Script(StandIn):
    """Answers to one request after the other; from then on as usual."""

    def __init__(self, *answers: str | Reply) -> None:
        super().__init__(("m",))
        self._answers = iter(answers)

    def answer(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        scripted = next(self._answers, None)
        self.replies = {}
        if isinstance(scripted, str):
            self.content = scripted
        elif scripted:
            self.replies = {handler.path: scripted}
        super().answer(handler, body)


def settings(**places: tuple[str, str]) -> dict[str, str]:
    """Prefix -> (address without a path, model), as `stoker endpoints` writes it."""
    found = {"UNIFIED_URL": next(iter(places.values()))[0]}
    for prefix, (address, model) in places.items():
        found[f"{prefix}_{'API_BASE' if prefix == 'EMBEDDING' else 'BASE_URL'}"] = f"{address}/v1"
        found |= {f"{prefix}_MODEL": model, f"{prefix}_API_KEY": "sk-0123456789"}
    return found


def client(program: str, *argv: str, stdin: str = "", **environment: str) -> Done:
    """Run a program in this process: the import of OpenAI's package takes longer than everything else."""
    out, err, code, begun = io.StringIO(), io.StringIO(), 0, time.monotonic()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.syspath_prepend(CLIENTS)
        patch.setattr(sys, "argv", [program, *argv])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            runpy.run_path(str(CLIENTS / program), run_name="__main__")
        except SystemExit as end:
            code = 1
            print(end.code, file=err)
    return Done((program, *argv), code, out.getvalue(), err.getvalue(), time.monotonic() - begun)


def scripted(program: str, *argv: str, prefix: str, answers: list[str | Reply], stdin: str = "") -> tuple[Done, Script]:
    with Script(*answers).serving() as server:
        assert isinstance(server, Script)
        done = client(program, *argv, stdin=stdin, **settings(**{prefix: (f"http://127.0.0.1:{server.port}", "m")}))
    return done, server


# --- the simulated engines ---


def test_forced_json_of_an_engine(served: Double) -> None:
    environment = settings(LLAMA=(served.url, "llama3.1-8b"), QWEN=(served.url, "llama3.1-8b"))
    entities = client("extract_entities.py", PARIS, **environment)
    assert (entities.code, json.loads(entities.out)) == (0, {"entities": []}), str(entities)
    judged = client("judge_memory_action.py", "Alice moved to Oslo", "Alice lives in Paris", **environment)
    assert json.loads(judged.out)["action"] == "ADD", str(judged)


def test_a_stream_of_an_engine(served: Double) -> None:
    done = client("stream_chat.py", "Count", **settings(LLAMA=(served.url, "llama3.1-8b")))
    assert (done.code, len(done.out.split()) > 5) == (0, True), str(done)
    assert "llama3.1-8b: stop, first words after" in done.err
    assert "tokens" in done.err


@pytest.fixture(scope="module")
def bge(tmp_path_factory: pytest.TempPathFactory, library: str) -> Iterator[Double]:
    """Ollama with bge-m3; texts with the word `sick` have no vector."""
    host = make_host(tmp_path_factory.mktemp("bge") / "host", "P40-24GB")
    with running(start_ollama(host, OLLAMA_LAB_LIBRARY=library)) as double:
        double.wait_ready()
        assert double.post("/api/pull", {"model": "bge-m3", "stream": False}).json() == {"status": "success"}
        set_faults(host, all="nan=sick")
        yield double


def test_a_text_without_a_vector_costs_no_other_one_its_own(bge: Double) -> None:
    texts = [f"{'sick ' if number in (3, 17) else ''}text {number}" for number in range(40)]
    done = client("embed.py", stdin="\n".join(texts), **settings(EMBEDDING=(bge.url, "bge-m3")))
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["text"] for row in rows] == texts, str(done)
    assert [number for number, row in enumerate(rows) if row["vector"] is None] == [3, 17]
    assert {len(row["vector"]) for row in rows if row["vector"]} == {1024}
    assert (done.code, done.err.strip()) == (1, "2 of 40 texts have no vector")


def test_curl(served: Double, bge: Double) -> None:
    environment = settings(
        LLAMA=(served.url, "llama3.1-8b"), QWEN=(served.url, "llama3.1-8b"), EMBEDDING=(bge.url, "bge-m3")
    )
    done = run(str(CLIENTS / "curl.sh"), env=environment, seconds=30)
    assert done.code == 0, str(done)
    assert r"{\"news\": true}" in done.out
    assert "data: [DONE]" in done.out
    assert '"embedding":[' in done.out
    wrong = run(str(CLIENTS / "curl.sh"), env={**environment, "LLAMA_MODEL": "nobody"}, seconds=30)
    assert wrong.code != 0
    assert "nobody" in wrong.out


# --- answers that go wrong ---


def entities(*names: str) -> str:
    return json.dumps({"entities": [{"name": name, "type": "place"} for name in names]})


def cut(content: str) -> Reply:
    return as_json({"model": "m", "choices": [{"message": {"content": content}, "finish_reason": "length"}]})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (entities("Paris", "Rome"), "'Rome' is not in the text"),
        ("Here are the entities: Paris", "Invalid JSON"),
        (cut('{"entities": ['), "longer than max_tokens"),
    ],
)
def test_a_wrong_answer_is_asked_for_again_with_the_reason(wrong: str | Reply, said: str) -> None:
    done, server = scripted("extract_entities.py", PARIS, prefix="LLAMA", answers=[wrong, entities("Paris")])
    assert [one["name"] for one in json.loads(done.out)["entities"]] == ["Paris"], str(done)
    first, second = (body for _, _, body in server.requests)
    assert first["response_format"]["json_schema"]["strict"] is True
    assert said in second["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("program", "prefix", "argv", "content", "said"),
    [
        ("extract_entities.py", "LLAMA", [PARIS], entities("Rome"), "'Rome' is not in the text"),
        (
            "judge_memory_action.py",
            "QWEN",
            ["It rains", "It is dry"],
            '{"action": "UPDATE", "memory": 2, "text": "It rains"}',
            "UPDATE of memory 2, but there are 1",
        ),
        (
            "judge_memory_action.py",
            "QWEN",
            ["It rains"],
            '{"action": "ADD", "memory": 0, "text": " "}',
            "ADD needs a text",
        ),
    ],
)
def test_an_answer_that_stays_wrong_is_none(
    program: str, prefix: str, argv: list[str], content: str, said: str
) -> None:
    done, server = scripted(program, *argv, prefix=prefix, answers=[content] * 9)
    assert (done.code, done.out, len(server.requests)) == (1, "", 3), str(done)
    assert said in done.err


BUSY: Reply = (503, {"Content-Type": "application/json", "Retry-After": "0"}, b'{"error": {"message": "no member"}}')


def test_vectors_after_a_busy_engine() -> None:
    done, server = scripted("embed.py", prefix="EMBEDDING", answers=[BUSY, BUSY], stdin="one\ntwo\n")
    assert (done.code, len(server.requests), len(done.out.splitlines())) == (0, 3, 2), str(done)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_nan_in_a_vector_is_none(value: float | None) -> None:
    data = [{"index": 1, "embedding": [1.0, 2.0]}, {"index": 0, "embedding": [0.5, value]}]
    answer = as_json({"model": "m", "data": data})
    done, _ = scripted("embed.py", prefix="EMBEDDING", answers=[answer], stdin="one\ntwo\n")
    assert [json.loads(line)["vector"] for line in done.out.splitlines()] == [None, [1.0, 2.0]], str(done)
    assert done.code == 1


def test_a_refusal_is_not_tried_again() -> None:
    refused = as_json({"error": {"message": "no such model"}}, 404)
    done, server = scripted("embed.py", prefix="EMBEDDING", answers=[refused], stdin="one\n")
    assert (done.code, done.out, len(server.requests)) == (1, "", 1), str(done)
    assert "no such model" in done.err


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    event = json.dumps({"model": "m", "choices": [{"index": 0, "delta": {"content": "One, two"}}]})
    torn: Reply = (200, {"Content-Type": "text/event-stream"}, f"data: {event}\n\n".encode())
    done, _ = scripted("stream_chat.py", "Count", prefix="LLAMA", answers=[torn])
    assert (done.code, done.out.strip()) == (1, "One, two"), str(done)
    assert "broken off" in done.err


@pytest.mark.parametrize("program", ["extract_entities.py", "embed.py", "stream_chat.py"])
def test_without_settings_the_way_to_them_is_told(program: str) -> None:
    done = client(program, "x", stdin="x")
    assert done.code == 1
    assert "stoker endpoints" in done.err
    assert "Traceback" not in done.err


def test_they_stay_small() -> None:
    for file in CLIENTS.iterdir():
        if file.suffix in (".py", ".sh"):
            assert len(Path(file).read_text().splitlines()) < 80, file

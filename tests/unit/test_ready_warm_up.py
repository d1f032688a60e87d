"""The requests before the deciding one: their lengths, their way to the engine, and what their answers mean."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from ready_fakes import FakeDocker, FakeEngine, Scene, ScriptedHost, full_body, inspect_json
from support.fleet import Data, instances
from support.states import bare, fleet_and_host

from stoker.models.card import Cards, load_cards
from stoker.ready import Target, Verdict, wait_ready
from stoker.ready.probe import Look, build_script, parse_output
from stoker.ready.question import Answer, Judgement, judge, question, questions
from stoker.ready.warm_up import SENTENCE, prompt_lengths
from stoker.steps.informed import informed
from stoker.steps.waiting import unproven

ROOT = Path(__file__).resolve().parents[2]
CHAT = Target("gpu10", "vllm_a", "vllm", "vllm_a", 11401, "llama3.1-8b", prompts=(256, 4096))
POOL = Target("gpu10", "vllm_e", "vllm", "vllm_e", 8000, "bge-m3", pooling=True, prompts=(256, 4096))
OLLAMA = Target("gpu65", "ollama_0", "ollama", "ollama_0", 11434, "bge-m3", 1024, prompts=(256, 1024))
GOOD = {"choices": [{"text": " Paris, which lies on the Seine"}]}


@pytest.mark.parametrize(
    ("context", "batch", "on_cards", "lengths"),
    [
        (8192, 2048, True, (256, 4096)),
        (16384, 2048, True, (256, 4096)),
        (16384, 8192, True, (256, 8192)),
        (2048, 2048, True, (256, 1024)),
        (512, 2048, True, (256,)),
        (100, 2048, True, ()),
        (None, 2048, True, (256, 1024)),
        (16384, 2048, False, (256, 512)),
    ],
)
def test_lengths_come_from_the_instance(
    context: int | None, batch: int, on_cards: bool, lengths: tuple[int, ...]
) -> None:
    assert prompt_lengths(context, batch, on_cards) == lengths
    assert all(one <= (context or 2048) / 2 for one in lengths)


def test_the_short_request_that_decides_comes_last() -> None:
    for target in (CHAT, POOL, OLLAMA):
        *warm, last = questions(target)
        assert [one.tokens for one in warm] == list(target.prompts)
        assert last == question(target)
        assert [one.then_url for one in warm] == ["", ""]
        # the first may load the model or compile; the longest is bounded
        assert warm[0].seconds == last.seconds
        assert warm[1].seconds <= 60
    body = json.loads(full_body(questions(CHAT)[1]))
    assert body["model"] == "llama3.1-8b"
    assert 4096 * 0.5 < len(body["prompt"].split()) < 4096
    assert json.loads(full_body(questions(OLLAMA)[1]))["input"].startswith(SENTENCE)
    assert json.loads(full_body(questions(POOL)[1]))["input"].startswith(SENTENCE)
    assert all(len(one.body) < 300 for one in questions(CHAT)), "a long prompt is written on the host"


def told(target: Target, step: int, code: int, body: object, error: str = "") -> Judgement:
    text = body if isinstance(body, str) else json.dumps(body)
    return judge(target, Answer(code, 1.0, error, text), questions(target)[step])


def test_answers_to_warm_up_prompts() -> None:
    assert told(CHAT, 0, 200, GOOD) == Judgement()
    # a text of one letter may be how a model goes on; a sign is not, and neither is nothing
    assert told(CHAT, 1, 200, {"choices": [{"text": "aaaa"}]}) == Judgement()
    for text, name in (("!!!!!!!!", "repeated-character"), ("", "empty-answer")):
        wrong = told(CHAT, 1, 200, {"choices": [{"text": text}]}).wrong
        assert wrong
        assert wrong.id == name
        assert "about 4096 tokens" in wrong.cause
    nan = told(POOL, 1, 200, {"data": [{"embedding": [0.1, float("nan")]}]}).wrong
    assert nan
    assert nan.id == "embedding-not-finite"
    # where the model lies is asked with the deciding request
    assert told(OLLAMA, 0, 200, {"embeddings": [[0.1] * 1024]}) == Judgement()
    failed = told(OLLAMA, 1, 500, '{"error":"embedding contains NaN or Inf values"}').wrong
    assert failed
    assert failed.id == "embedding-not-finite"


def test_slow_and_too_long_are_no_faults_and_a_first_prompt_without_answer_is() -> None:
    slow = told(CHAT, 1, 0, "", "Operation timed out after 60001 milliseconds")
    assert slow.wrong is None
    assert "4096 tokens takes more than 60 s" in slow.note
    stuck = told(CHAT, 0, 0, "", "Operation timed out after 120001 milliseconds").wrong
    assert stuck
    assert stuck.id == "no-answer"
    refused = {"error": {"message": "This model's maximum context length is 512 tokens. However, you requested 5000"}}
    assert told(CHAT, 1, 400, refused) == Judgement()
    other = told(CHAT, 1, 400, {"error": {"message": "bad"}}).wrong
    assert other
    assert other.id == "request-refused"


def look(tmp_path: Path, docker: FakeDocker, asked: Look) -> Answer | None:
    script = build_script(
        [asked], "stoker-0123456789abcdef", docker_socket=str(docker.path), work_directory=str(tmp_path / "run")
    )
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    return parse_output(done.stdout, [asked], "stoker-0123456789abcdef").instances[0].answer


def test_the_host_writes_the_prompt_and_the_engine_gets_it_whole(tmp_path: Path) -> None:
    docker = FakeDocker(tmp_path / "docker.sock").start()
    engine = FakeEngine(answers={"GET /health": (200, ""), "POST /v1/completions": (200, GOOD)}).start()
    docker.containers = {"vllm_a": inspect_json("vllm_a")}
    target = replace(CHAT, port=engine.port, model='it\'s 100% %s @ \\ "quoted"')
    try:
        for step, one in enumerate(questions(target)):
            asked = Look(target, start=f"step{step}", question=one)
            limit = time.monotonic() + 20
            while (answer := look(tmp_path, docker, asked)) is None:
                assert time.monotonic() < limit
            assert answer.code == 200
            posts = [body for what, body in engine.asked if what.startswith("POST")]
            assert len(posts) == step + 1
            assert posts[-1] == full_body(one)
            assert json.loads(posts[-1])["model"] == target.model
    finally:
        engine.stop()
        docker.stop()


class Silent:
    def join(self, targets: object) -> None: ...
    def show(self, views: object) -> None: ...
    def leave(self, outcomes: object) -> None: ...


def test_every_prompt_is_asked_without_a_pause_and_a_death_from_a_long_one_is_told() -> None:
    up = inspect_json("vllm_a")
    host = ScriptedHost([[Scene(0, up), Scene(10.0, up, 200, answer=(200, GOOD))]], look_seconds=0.15)
    (outcome,) = wait_ready(host.run, [CHAT], Silent(), clock=host.clock, sleep=host.sleep)
    assert outcome.ok
    assert outcome.seconds - 10.0 < 1.5
    asked = [int(found) for script in host.scripts for found in re.findall(r" (\d+) '?The server answered", script)]
    assert [key for key, _ in groupby(asked)] == [one.repeat for one in questions(CHAT)[:2]]

    log = "(EngineCore pid=9) ERROR 04-18 10:11:20 [core.py:1] torch.AcceleratorError: CUDA error: an illegal memory access was encountered\n"
    dead = inspect_json("vllm_a", status="exited", exit_code=0, policy="no")
    died = ScriptedHost([[Scene(0, up, 200, answer=(200, GOOD)), Scene(0.2, up, 200), Scene(3.0, dead, log=log)]])
    (outcome,) = wait_ready(died.run, [CHAT], Silent(), clock=died.clock, sleep=died.sleep)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "gpu-fault"


def test_a_slow_prompt_is_a_note_of_a_ready_instance() -> None:
    up = inspect_json("vllm_a")

    class Slow(ScriptedHost):
        def run(self, script: str) -> object:
            result = super().run(script)
            if f" {questions(CHAT)[1].repeat} {SENTENCE[:3]}" in script.replace("'", ""):
                result = replace(result, stdout=result.stdout.replace("200 0.2 ", "000 60.0 Operation timed out"))
            return result

    host = Slow([[Scene(0, up, 200, answer=(200, GOOD))]])
    (outcome,) = wait_ready(host.run, [CHAT], Silent(), clock=host.clock, sleep=host.sleep)
    assert outcome.ok
    assert "about 4096 tokens takes more than 60 s" in outcome.note
    assert "answered" in outcome.note


def test_what_is_known_of_the_default_fleets_instances() -> None:
    def embedding(data: Data) -> None:
        first = instances(data, "llm")[0]
        first["arguments"] = {**first["arguments"], "runner": "pooling"}
        # by itself, so that no pool has instances of two kinds
        first["model"] = "embedder"
        data["all"]["models"]["embedder"] = data["all"]["models"]["llama3.1-8b"]

    _, host = fleet_and_host("llm", embedding)
    waiting = unproven(host, bare(host))
    first, *others = informed(waiting, host, load_cards([ROOT / "group_data"]), bare(host))
    assert first.pooling
    assert question(first).url.endswith("/v1/embeddings")
    assert not any(one.pooling for one in others)
    assert {one.prompts for one in others} == {(256, 4096)}
    assert all(one.known.image.startswith("vllm/vllm-openai:v") for one in others)
    assert all(one.known.memory for one in others)
    # without a model's card the described length is all there is
    assert {one.prompts for one in informed(waiting, host, Cards(), bare(host))} == {(256, 4096)}

"""The real requests that an instance must answer before it counts as ready, and the check of its answers."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from stoker.ready.diagnosis import UNKNOWN, Diagnosis, diagnose_text
from stoker.ready.target import Target
from stoker.ready.warm_up import LONG_SECONDS, SENTENCE, as_json, sentences

FILL = "@@"
TEXT = "Stoker asks for one real answer: which city is the capital of France?"


@dataclass(frozen=True, slots=True)
class Question:
    """POST `body` to `url` within `seconds`; then, where `then_url` is set, GET that too.

    With `repeat` the place FILL in `body` stands for so many times `filler`, written by the host: a long prompt does not
    travel with every look. `tokens`: of a prompt that only warms the engine up; 0 for the one whose answer is checked fully.
    """

    url: str
    body: str
    then_url: str = ""
    seconds: int = 120  # a first request may still compile kernels
    repeat: int = 0
    filler: str = ""
    tokens: int = 0

    @property
    def what(self) -> str:
        """For the view, behind "asked for a first answer"."""
        return f"warming up with {self.tokens} tokens" if self.tokens else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `code` is the HTTP status (0: no answer, `error` says why), `seconds` how long it took."""

    code: int
    seconds: float
    error: str
    body: str
    then_body: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`wrong` is None for a good answer. `note` tells what is worth knowing about a good one.

    `final`: asking again cannot change it.
    """

    wrong: Diagnosis | None = None
    final: bool = False
    note: str = ""


def questions(target: Target) -> tuple[Question, ...]:
    """All requests for an instance in their order: its warm-up prompts, then the one whose answer decides.

    The last is a short one: after the long prompts it also tells that they left the engine in order.
    """
    last = question(target)
    return (*(_warm_up(target, last, tokens, at > 0) for at, tokens in enumerate(target.prompts)), last)


def _warm_up(target: Target, last: Question, tokens: int, bounded: bool) -> Question:
    body = json.loads(last.body)
    if target.embeds:
        body["input"] = FILL
    else:
        body |= {"prompt": FILL, "max_tokens": 4}
    return replace(
        last,
        body=json.dumps(body),
        then_url="",
        seconds=min(last.seconds, LONG_SECONDS) if bounded else last.seconds,
        repeat=sentences(tokens),
        filler=as_json(SENTENCE),
        tokens=tokens,
    )


def question(target: Target) -> Question:
    """The request whose answer decides: an embedding, or a completion of a few tokens.

    Ollama loads the model for the first request, and is asked here where the model lies.
    """
    base = f"http://{target.address}:{target.port}"
    if target.engine == "ollama":
        body = json.dumps({"model": target.model, "input": TEXT})
        # longer than Ollama's own limit for loading a model, OLLAMA_LOAD_TIMEOUT, 5 minutes
        return Question(f"{base}/api/embed", body, then_url=f"{base}/api/ps", seconds=330)
    if target.embeds:
        return Question(f"{base}/v1/embeddings", json.dumps({"model": target.model, "input": TEXT}))
    prompt = {"model": target.model, "prompt": TEXT, "max_tokens": 16, "min_tokens": 4, "temperature": 0}
    return Question(f"{base}/v1/completions", json.dumps(prompt))


def judge(target: Target, answer: Answer, asked: Question | None = None) -> Judgement:
    """Is this a real answer to `asked` (the deciding request when it is left out)?"""
    if asked is not None and asked.tokens:
        return _judge_warm_up(target, answer, asked)
    if answer.code != 200:
        return _refused(target, answer)
    try:
        body = json.loads(answer.body)
    except ValueError:
        return _bad("not-json", "the answer is not JSON", "look at what listens on the port", answer.body)
    return _judge_vector(target, body, answer) if target.embeds else _judge_text(body)


# vLLM 0.8.5 to 0.33, Ollama, and llama.cpp: a prompt that is longer than the instance takes, which only says that our guess of its length was.
_TOO_LONG = re.compile(
    r"maximum (?:context|model) length|longer than the maximum|exceeds the (?:available )?context (?:length|size)|too (?:long|large)"
)


def _judge_warm_up(target: Target, answer: Answer, asked: Question) -> Judgement:
    """What counts is that it lives and computes numbers; slow is no fault, and neither is a prompt that was too long."""
    if answer.code == 0 and "timed out" in answer.error and asked.seconds <= LONG_SECONDS:
        return Judgement(note=f"a prompt of about {asked.tokens} tokens takes more than {asked.seconds} s")
    if 400 <= answer.code < 500 and _TOO_LONG.search(answer.body):
        return Judgement()
    if answer.code != 200:
        return _about(_refused(target, answer), asked)
    try:
        body = json.loads(answer.body)
    except ValueError:
        return _bad("not-json", "the answer is not JSON", "look at what listens on the port", answer.body)
    if target.embeds:
        return _about(_judge_vector(replace(target, gpu_required=False), body, answer), asked)
    # One letter over and over is how a model may go on with such a text; a sign is how wrong arithmetic shows.
    return _about(_judge_text(body, letters_may_repeat=True), asked)


def _about(judgement: Judgement, asked: Question) -> Judgement:
    wrong = judgement.wrong
    if wrong is None:
        return Judgement()
    return replace(judgement, wrong=replace(wrong, cause=f"{wrong.cause} (a prompt of about {asked.tokens} tokens)"))


def _bad(name: str, cause: str, remedy: str, evidence: object = "", *, final: bool = True) -> Judgement:
    return Judgement(Diagnosis(name, cause, remedy, evidence=str(evidence)[:400]), final=final)


def _refused(target: Target, answer: Answer) -> Judgement:
    if answer.code == 0:
        return _bad(
            "no-answer",
            f"the instance did not answer a real request ({answer.error or 'no reply'})",
            "look at the container's log for what it did with the request",
            final="timed out" in answer.error,
        )
    evidence = f"HTTP {answer.code}: {' '.join(answer.body.split())[:300]}"
    known = diagnose_text(target.engine, answer.body, target.known)
    if known and known.id != UNKNOWN:
        return Judgement(Diagnosis(known.id, known.cause, known.remedy, evidence), final=not known.heals)
    if answer.code in (401, 403):
        return _bad(
            "key-needed",
            "the instance wants an API key",
            "leave the key to the gateway: engines listen on the private network only",
            evidence,
        )
    if answer.code == 404:
        return _bad(
            "wrong-model-name",
            f"the instance does not serve a model named {target.model}",
            "make served_model_name (vLLM) or the pulled model (Ollama) and the instance's model name agree",
            evidence,
        )
    return _bad(
        "request-refused",
        f"the instance answered a real request with HTTP {answer.code}",
        "look at the container's log for the error of this request",
        evidence,
        final=400 <= answer.code < 500 and answer.code not in (408, 425, 429),
    )


def _judge_text(body: Any, *, letters_may_repeat: bool = False) -> Judgement:
    try:
        text = str(body["choices"][0]["text"])
    except (KeyError, IndexError, TypeError):
        return _bad("not-json", "the answer has no completion in it", "look at what listens on the port", body)
    letters = "".join(text.split())
    if not letters:
        return _bad(
            "empty-answer",
            "the model answered with nothing",
            "check that the checkpoint is complete and that tokenizer and model belong together",
            repr(text),
        )
    if len(set(letters)) == 1 and len(letters) > 1 and not (letters_may_repeat and letters.isalnum()):
        return _bad(
            "repeated-character",
            f"the model answers with one repeated character ({letters[0]!r}): it computes wrongly",
            "GPTQ on V100 needs vLLM v0.14 or later (v0.19.1 is Stoker's pin); with that, check the checkpoint's files",
            repr(text),
        )
    return Judgement(note=f"answered {' '.join(text.split())[:60]!r}")


def _judge_vector(target: Target, body: Any, answer: Answer) -> Judgement:
    try:
        vector = body["embeddings"][0] if target.engine == "ollama" else body["data"][0]["embedding"]
        values = [float(value) for value in vector]
    except (KeyError, IndexError, TypeError, ValueError):
        return _bad("not-json", "the answer has no embedding in it", "look at what listens on the port", body)
    if target.expect_dimensions is not None and len(values) != target.expect_dimensions:
        return _bad(
            "wrong-dimension",
            f"the embedding has {len(values)} values and {target.expect_dimensions} are expected",
            "check which model is served under this name (bge-m3 has 1024)",
            body.get("model", ""),
        )
    if not all(math.isfinite(value) for value in values):
        return _bad(
            "embedding-not-finite",
            "the embedding holds values that are not numbers",
            "restart the instance; if it stays, the model's files or the card are at fault",
        )
    if not any(values):
        return _bad(
            "embedding-zero",
            "the embedding is all zeros",
            "restart the instance; if it stays, the model's files or the card are at fault",
        )
    if target.engine == "ollama" and target.gpu_required:
        return _judge_place(target, answer.then_body)
    return Judgement(note=f"{len(values)} values")


def _with_tag(model: str) -> str:
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def _judge_place(target: Target, listing: str) -> Judgement:
    """From /api/ps: does the model lie in GPU memory?"""
    try:
        models = {_with_tag(str(one["name"])): one for one in json.loads(listing)["models"]}
    except (ValueError, KeyError, TypeError):
        return _bad("not-json", "/api/ps does not answer as Ollama does", "look at what listens on the port", listing)
    entry = models.get(_with_tag(target.model))
    if entry is None:
        return _bad(
            "ollama-not-resident",
            f"{target.model} answered, but is not kept loaded",
            "set OLLAMA_KEEP_ALIVE=-1 in the instance's environment",
            listing,
            final=False,
        )
    size, in_gpu = int(entry.get("size") or 0), int(entry.get("size_vram") or 0)
    if in_gpu <= 0:
        return _bad(
            "ollama-on-cpu",
            f"{target.model} runs on the CPU: none of its {size / 2**30:.1f} GiB is in GPU memory",
            "run nvidia-smi -L in the container (docker exec); a P40 needs driver 570 or newer (branch 580)",
            f"/api/ps: size_vram {in_gpu}",
        )
    if in_gpu < size:
        return Judgement(note=f"{100 * (size - in_gpu) / size:.0f} % of the model is on the CPU")
    return Judgement(note=f"{in_gpu / 2**30:.1f} GiB in GPU memory")

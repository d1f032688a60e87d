"""The one real request that an instance must answer before it counts as ready, and the check of its answer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from stoker.ready.diagnosis import UNKNOWN, Diagnosis, diagnose_text
from stoker.ready.target import Target

TEXT = "Stoker asks for one real answer: which city is the capital of France?"


@dataclass(frozen=True, slots=True)
class Question:
    """POST `body` to `url` within `seconds`; then, where `then_url` is set, GET that too."""

    url: str
    body: str
    then_url: str = ""
    seconds: int = 120  # a first request may still compile kernels


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


def question(target: Target) -> Question:
    """The request for an instance: an embedding, or a completion of a few tokens.

    Ollama loads the model for it (this is the warm-up) and is then asked where the model lies.
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


def judge(target: Target, answer: Answer) -> Judgement:
    """Is this a real answer?"""
    if answer.code != 200:
        return _refused(target, answer)
    try:
        body = json.loads(answer.body)
    except ValueError:
        return _bad("not-json", "the answer is not JSON", "look at what listens on the port", answer.body)
    return _judge_vector(target, body, answer) if target.embeds else _judge_text(body)


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
    known = diagnose_text(target.engine, answer.body)
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


def _judge_text(body: Any) -> Judgement:
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
    if len(set(letters)) == 1 and len(letters) > 1:
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

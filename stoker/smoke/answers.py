"""Is an answer right? Pure: an Answer in, what was found out; raises CheckFailed."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import Any

from stoker.smoke.check import CheckFailed
from stoker.smoke.curl import Answer
from stoker.spec.gateway import without_latest

#: Two texts whose vectors' cosine is above this are the same to the engine. Arithmetic in half precision moves the
#: cosine of equal texts by less than 1e-4.
SAME_COSINE = 0.999

_LOGS = "read the engine's log (docker logs)"


def json_of(answer: Answer, expected: str) -> dict[str, Any]:
    """The body of a 200 as an object."""
    if answer.status != 200 or answer.error:
        raise CheckFailed(f"HTTP 200 with {expected}", _with_error(answer), _remedy(answer))
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise CheckFailed(
            f"a JSON object with {expected}",
            answer.excerpt(),
            "find out what listens there: it is no engine that Stoker knows",
        )
    return body


def models(answer: Answer, wanted: Collection[str]) -> str:
    """/v1/models names every wanted model."""
    body = json_of(answer, "a list of models")
    found = [str(entry.get("id")) for entry in body.get("data") or [] if isinstance(entry, dict)]
    missing = sorted(set(map(without_latest, wanted)) - set(map(without_latest, found)))
    if missing:
        raise CheckFailed(
            f"the model{'s' if len(missing) > 1 else ''} {', '.join(missing)} in the list",
            f"the list has {', '.join(found) or 'nothing'}",
            "deploy again, and " + _LOGS,
        )
    return ", ".join(found)


def chat(answer: Answer, model: str, foreign: bool = False) -> str:
    """A chat completion from the model asked for, with words in it. ``foreign``: of a service that has names of its own."""
    body = json_of(answer, f"an answer of {model}")
    try:
        content = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise CheckFailed("choices[0].message.content", answer.excerpt(), _LOGS) from None
    if not foreign:
        same_model(body, model)
    return words(content)


def same_model(body: dict[str, Any], model: str) -> None:
    """The answer names the model that gave it; that proves the route."""
    named = str(body.get("model"))
    if without_latest(named) != without_latest(model):
        raise CheckFailed(
            f"an answer of {model}",
            f"an answer of {named}",
            "the route leads to another model: deploy the gateway again",
        )


def words(content: object) -> str:
    """Text that a working model could have written, shortened. One repeated character is how broken kernels answer."""
    text = "".join(content.split()) if isinstance(content, str) else ""
    if not text:
        raise CheckFailed("an answer with text", f"the text is {content!r}", _LOGS)
    if len(set(text)) == 1:
        raise CheckFailed(
            "words",
            f"one repeated character: {text[:40]!r}",
            "the engine's arithmetic is broken on this card: use the pinned image (vLLM 0.13 and older do this with GPTQ on V100), "
            "verify the model's files, and look for XID errors of the GPU in dmesg",
        )
    shown = " ".join(str(content).split())
    return shown if len(shown) <= 60 else shown[:57] + "..."


def embeddings(
    answer: Answer, model: str, count: int, dimensions: int | None, foreign: bool = False
) -> list[list[float]]:
    """The vectors of an OpenAI-style answer, each checked. ``dimensions`` None: any length, the same for all.

    ``foreign``: of a service that has names of its own for the model.
    """
    body = json_of(answer, f"{count} embedding{'s' if count > 1 else ''}")
    if not foreign:
        same_model(body, model)
    try:
        vectors = [entry["embedding"] for entry in sorted(body["data"], key=lambda entry: int(entry.get("index", 0)))]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckFailed("data[].embedding", answer.excerpt(), _LOGS) from None
    if len(vectors) != count:
        raise CheckFailed(f"{count} vectors", f"{len(vectors)} vectors", _LOGS)
    for vector in vectors:
        _usable(vector, dimensions)
    if len({len(vector) for vector in vectors}) > 1:
        raise CheckFailed(
            "vectors of one length", f"lengths {', '.join(str(len(vector)) for vector in vectors)}", _LOGS
        )
    return vectors


def differ(first: Sequence[float], second: Sequence[float], what: str, remedy: str) -> str:
    """Two vectors are not the same direction."""
    similarity = cosine(first, second)
    if similarity > SAME_COSINE:
        raise CheckFailed(
            f"{what} give different vectors", f"their cosine is {similarity:.6f}: the engine saw the same text", remedy
        )
    return f"cosine {similarity:.3f}"


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(first, second, strict=True))
    return product / math.sqrt(sum(a * a for a in first) * sum(b * b for b in second))


def resident(answer: Answer, model: str) -> str:
    """Ollama's /api/ps: the model is loaded, and all of it on the GPU."""
    body = json_of(answer, "the loaded models")
    loaded = {
        without_latest(str(entry.get("name"))): entry for entry in body.get("models") or [] if isinstance(entry, dict)
    }
    entry = loaded.get(without_latest(model))
    if entry is None:
        raise CheckFailed(
            f"{model} loaded",
            f"loaded: {', '.join(loaded) or 'nothing'}",
            "set OLLAMA_KEEP_ALIVE=-1 and ask the model something",
        )
    size, on_gpu = int(entry.get("size") or 0), int(entry.get("size_vram") or 0)
    if on_gpu < size or not on_gpu:
        raise CheckFailed(
            f"all of {model} ({size / 1e6:.0f} MB) on the GPU",
            f"{on_gpu / 1e6:.0f} MB of it are there, the rest runs on the CPU",
            "Ollama falls back to the CPU in silence: compare the driver with what its log asks for (a P40 needs 570 or newer), "
            "and see that the card has room",
        )
    return f"{on_gpu / 1e6:.0f} MB on the GPU"


def _usable(vector: object, dimensions: int | None) -> None:
    # json.loads turns NaN and Infinity into floats; Ollama's own failures are null.
    if not isinstance(vector, list) or not vector or not all(isinstance(value, int | float) for value in vector):
        raise CheckFailed("a vector of numbers", f"{str(vector)[:120]}", _LOGS)
    if dimensions is not None and len(vector) != dimensions:
        raise CheckFailed(
            f"{dimensions} values",
            f"{len(vector)} values",
            "another model answers under this name: see which one was pulled",
        )
    if not all(math.isfinite(value) for value in vector):
        raise CheckFailed(
            "finite values",
            f"{sum(not math.isfinite(value) for value in vector)} values are NaN or infinite",
            "the engine's arithmetic failed; restart the instance, and look for XID errors of the GPU in dmesg",
        )
    if not any(vector):
        raise CheckFailed("values other than zero", "all values are 0", _LOGS)


def _with_error(answer: Answer) -> str:
    return f"{answer.excerpt()} [{answer.error}]" if answer.status and answer.error else answer.excerpt()


def _remedy(answer: Answer) -> str:
    """What a person does about a request that failed."""
    if not answer.status:
        if "timed out" in answer.error or "Timeout" in answer.error:
            return "nothing answers in time: see whether host and engine are alive (stoker status, docker logs)"
        return (
            "nothing listens there: see whether the container runs (docker ps -a) and what it logged last (docker logs)"
        )
    if "NaN or Inf" in answer.body:
        return (
            "bge-m3 on Ollama does this with some texts (ollama #13572, #14657, open in 0.32) and on a sick card with all: "
            "restart the instance; if it stays, look for XID errors of the GPU in dmesg"
        )
    if "network_not_allowed" in answer.body:
        return (
            "write this machine's network in the gateway's allowed_networks; `client` in its log is the address that it saw. Is that one of Docker's "
            "(172.17.0.1, 172.18.0.1 ...), then Docker's rules were flushed on its host: systemctl restart docker there"
        )
    if "service_key_refused" in answer.body:
        return "give the gateway the service's present key: export the variable that `external` names, and deploy"
    if answer.status in (401, 403):
        return "the service wants a key that the description does not give"
    if answer.status == 404:
        return "the path or the model is not served there: deploy again, and compare the engine's arguments"
    if answer.status in (502, 503, 504):
        return "no member of the pool took the request: the checks of its instances say why"
    return _LOGS

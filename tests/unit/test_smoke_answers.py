"""Which answers are right."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from smoke_stand_in import vector

from stoker.smoke import answers, texts
from stoker.smoke.check import CheckFailed
from stoker.smoke.curl import Answer


def ok(body: object, status: int = 200, error: str = "") -> Answer:
    return Answer(status, 0.1, body if isinstance(body, str) else json.dumps(body), {}, error)


def chat(content: object, model: str = "m") -> Answer:
    return ok({"model": model, "choices": [{"message": {"content": content}}]})


def embedded(*vectors: object, model: str = "m") -> Answer:
    return ok({"model": model, "data": [{"index": index, "embedding": one} for index, one in enumerate(vectors)]})


def failure(run: Callable[[], object]) -> CheckFailed:
    with pytest.raises(CheckFailed) as caught:
        run()
    assert caught.value.expected
    assert caught.value.found
    assert caught.value.remedy
    return caught.value


def test_words() -> None:
    assert answers.chat(chat("Red, green\nand blue."), "m") == "Red, green and blue."
    assert answers.chat(chat("红色。"), "m") == "红色。"


@pytest.mark.parametrize("content", ["!!!!!!!!", "! ! ! !\n!", "0", "  aaaa "])
def test_one_repeated_character_is_no_answer(content: str) -> None:
    assert "one repeated character" in failure(lambda: answers.chat(chat(content), "m")).found


@pytest.mark.parametrize("content", ["", "   \n", None, 7, ["text"]])
def test_an_empty_answer(content: object) -> None:
    assert "with text" in failure(lambda: answers.chat(chat(content), "m")).expected


def test_an_answer_of_another_model() -> None:
    assert failure(lambda: answers.chat(chat("Red.", model="other"), "m")).found == "an answer of other"


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{}]}, {"choices": "x"}, [], "<html>", "null"])
def test_something_else_than_a_chat_answer(body: object) -> None:
    failure(lambda: answers.chat(ok(body), "m"))


@pytest.mark.parametrize(
    ("answer", "found", "remedy"),
    [
        (Answer(403, 0.1, '{"error": {"code": "network_not_allowed"}}', {}), "403", "allowed_networks"),
        (Answer(403, 0.1, "{}", {}), "403", "wants a key"),
        (Answer(0, 0, "", {}, "curl: (7) Failed to connect"), "curl: (7)", "docker ps"),
        (Answer(0, 20, "", {}, "curl: (28) Operation timed out"), "(28)", "alive"),
        (ok({"error": "x"}, 404), "HTTP 404", "arguments"),
        (ok({"error": "x"}, 503), "HTTP 503", "instances"),
        (ok({"error": "embedding contains NaN or Inf values"}, 500), "HTTP 500", "restart the instance"),
        (ok({"error": "no key"}, 401), "HTTP 401", "key"),
        (ok("partial", 200, "curl: (18) transfer closed"), "(18)", "log"),
    ],
)
def test_a_failed_request_says_what_to_do(answer: Answer, found: str, remedy: str) -> None:
    caught = failure(lambda: answers.chat(answer, "m"))
    assert found in caught.found
    assert remedy in caught.remedy


def test_models_are_listed() -> None:
    listed = ok({"data": [{"id": "bge-m3:latest"}, {"id": "other"}]})
    assert answers.models(listed, ["bge-m3"]) == "bge-m3:latest, other"
    assert "qwen" in failure(lambda: answers.models(listed, ["bge-m3", "qwen"])).expected


def test_vectors() -> None:
    answer = embedded(vector("a"), vector("b"), model="m:latest")
    assert answers.embeddings(answer, "m", 2, 8) == [vector("a"), vector("b")]


def test_vectors_come_in_the_order_of_their_index() -> None:
    answer = ok({"model": "m", "data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]})
    assert answers.embeddings(answer, "m", 2, None) == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ([math.nan, 1.0, 1.0], "1 values are NaN"),
        ([math.inf, 1.0, 1.0], "infinite"),
        ([0.0, 0.0, 0.0], "0"),
        ([1.0, 2.0], "2 values"),
        ([], "[]"),
        (None, "None"),
        ([1.0, None, 2.0], "None"),
        ("text", "text"),
    ],
)
def test_unusable_vectors(broken: object, found: str) -> None:
    assert found in failure(lambda: answers.embeddings(embedded([1.0, 2.0, 3.0], broken), "m", 2, 3)).found


def test_too_few_vectors_and_unequal_lengths() -> None:
    assert "1 vectors" in failure(lambda: answers.embeddings(embedded([1.0]), "m", 2, None)).found
    assert "lengths 1, 2" in failure(lambda: answers.embeddings(embedded([1.0], [1.0, 2.0]), "m", 2, None)).found


def test_equal_vectors() -> None:
    noisy = [value + 1e-5 for value in vector("a")]
    assert "cosine" in failure(lambda: answers.differ(vector("a"), noisy, "two texts", "do")).found
    assert answers.differ(vector("a"), vector("b"), "two texts", "do").startswith("cosine ")


def test_the_long_text_begins_with_the_cut_one() -> None:
    assert texts.long_text().startswith(texts.cut_text() + " ")
    assert len(texts.long_text().split()) == 6000
    assert len(texts.cut_text().split()) == 2500


def test_resident_on_the_gpu() -> None:
    def loaded(on_gpu: int) -> Answer:
        return ok({"models": [{"name": "bge-m3:latest", "size": 1_200_000_000, "size_vram": on_gpu}]})

    assert answers.resident(loaded(1_200_000_000), "bge-m3") == "1200 MB on the GPU"
    assert "CPU" in failure(lambda: answers.resident(loaded(0), "bge-m3")).found
    assert "CPU" in failure(lambda: answers.resident(loaded(600_000_000), "bge-m3")).found
    assert "nothing" in failure(lambda: answers.resident(ok({"models": []}), "bge-m3")).found

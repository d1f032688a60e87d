"""The compatibility table: every row holds where it should, and not just beside that."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stoker.plan.compatibility import Answer, Question, answers, engine_version
from stoker.plan.compatibility.page import page
from stoker.plan.compatibility.table import all_rows
from stoker.spec.vllm import REMOVED

PROJECT = Path(__file__).resolve().parents[2]

V100 = Question("vllm", "vllm/vllm-openai:v0.19.1", "Tesla V100-SXM2-32GB", (7, 0), "580.173.02", "proprietary")
T4 = replace(V100, card="Tesla T4", compute_capability=(7, 5))
A100 = replace(V100, card="NVIDIA A100-SXM4-40GB", compute_capability=(8, 0))
L4 = replace(V100, card="NVIDIA L4", compute_capability=(8, 9))
P40 = Question("ollama", "ollama/ollama:0.32.15", "Tesla P40", (6, 1), "580.173.02", "proprietary", model="bge-m3:567m")


def vllm(version: str, base: Question = V100, **changes: Any) -> Question:
    return replace(base, image=f"vllm/vllm-openai:v{version}", **changes)


def with_arguments(base: Question = V100, **arguments: Any) -> Question:
    return replace(base, arguments={name.replace("_", "-"): value for name, value in arguments.items()})


def gptq(version: str, bits: int | None, base: Question = V100) -> Question:
    return vllm(version, base, quantization="gptq", quantization_bits=bits)


NUM_PARALLEL = replace(P40, environment={"OLLAMA_NUM_PARALLEL": "4"})

#: Row -> a question for which it holds, and one that differs from it by a little and for which it does not.
CASES: dict[str, tuple[Question, Question]] = {
    "open-module": (replace(V100, kernel_module="open"), replace(T4, kernel_module="open")),
    "driver-after-580": (replace(P40, driver="590.48.01"), replace(P40, driver="580.173.02")),
    "driver-cuda-12": (replace(V100, driver="515.65.01"), replace(V100, driver="525.60.13")),
    "driver-cuda-13": (vllm("0.20.0", T4, driver="575.64"), vllm("0.20.0-cu129", T4, driver="575.64")),
    "version-assumed": (replace(V100, image="vllm/vllm-openai:latest"), V100),
    "third-party-image": (
        replace(V100, image="ghcr.io/sasha0552/vllm:v0.19.1"),
        replace(V100, image="mirror.example.org/vllm/vllm-openai:v0.19.1"),
    ),
    "vllm-below-volta": (replace(V100, compute_capability=(6, 1)), V100),
    "vllm-volta": (vllm("0.20.0"), vllm("0.20.0", T4)),
    "vllm-cuda-13-volta": (vllm("0.19.1-cu130"), vllm("0.19.1-cu129")),
    "bfloat16-asked": (with_arguments(dtype="bfloat16"), with_arguments(A100, dtype="bfloat16")),
    "bfloat16-cast": (
        replace(V100, torch_dtype="bfloat16"),
        replace(with_arguments(dtype="half"), torch_dtype="bfloat16"),
    ),
    "float16-asked": (
        replace(with_arguments(A100, dtype="half"), model_type="gemma3"),
        replace(with_arguments(A100, dtype="half"), model_type="gemma"),
    ),
    "float32-cast": (replace(V100, model_type="gemma2"), replace(A100, model_type="gemma2")),
    "float32-quantised": (
        replace(with_arguments(dtype="float32"), quantization="gptq"),
        replace(with_arguments(dtype="half"), quantization="gptq"),
    ),
    "fp8-weights": (replace(V100, quantization="fp8"), replace(T4, quantization="fp8")),
    "fp8-weights-emulated": (replace(T4, quantization="fp8"), replace(L4, quantization="fp8")),
    "fp8-cache": (with_arguments(kv_cache_dtype="fp8"), with_arguments(kv_cache_dtype="auto")),
    "fp8-cache-emulated": (
        with_arguments(A100, kv_cache_dtype="fp8_e4m3"),
        with_arguments(L4, kv_cache_dtype="fp8_e4m3"),
    ),
    "gptq-marlin-early": (
        vllm("0.11.2", with_arguments(T4, quantization="gptq_marlin")),
        vllm("0.12.0", with_arguments(T4, quantization="gptq_marlin")),
    ),
    "gptq-marlin": (with_arguments(quantization="gptq_marlin"), with_arguments(T4, quantization="gptq_marlin")),
    "awq": (replace(V100, quantization="awq"), replace(T4, quantization="awq")),
    "gptq-race-int4-early": (gptq("0.10.2", 4, T4), gptq("0.10.2", 4, A100)),
    "gptq-race-int8-early": (gptq("0.10.2", 8), gptq("0.10.2", 4)),
    "gptq-race-unknown-early": (gptq("0.11.2", None), gptq("0.14.1", None)),
    "gptq-race-int4": (gptq("0.13.0", 4), gptq("0.14.0", 4)),
    "gptq-race-int8": (gptq("0.13.0", 8), gptq("0.13.0", 8, T4)),
    "gptq-race-unknown": (gptq("0.12.0", None), gptq("0.12.0", 4)),
    "gptq-race-asked": (vllm("0.13.0", with_arguments(A100, quantization="gptq")), gptq("0.13.0", 4, A100)),
    "flash-attention": (
        with_arguments(T4, attention_backend="FLASH_ATTN"),
        with_arguments(A100, attention_backend="FLASH_ATTN"),
    ),
    "flashinfer": (with_arguments(attention_backend="FLASHINFER"), with_arguments(T4, attention_backend="FLASHINFER")),
    "xformers": (
        vllm("0.12.0", environment={"VLLM_ATTENTION_BACKEND": "XFORMERS"}),
        vllm("0.11.2", environment={"VLLM_ATTENTION_BACKEND": "XFORMERS"}),
    ),
    "attention-variable": (
        replace(V100, environment={"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"}),
        vllm("0.11.2", environment={"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"}),
    ),
    "block-size-v0": (vllm("0.9.2", with_arguments(block_size=64)), with_arguments(block_size=64)),
    "shutdown-timeout": (
        vllm("0.17.1", with_arguments(shutdown_timeout=30)),
        vllm("0.18.0", with_arguments(shutdown_timeout=30)),
    ),
    "kv-cache-memory-bytes": (
        vllm("0.10.2", with_arguments(kv_cache_memory_bytes=1 << 30)),
        vllm("0.11.0", with_arguments(kv_cache_memory_bytes=1 << 30)),
    ),
    "ollama-below-maxwell": (
        replace(P40, card="Tesla K80", compute_capability=(3, 7)),
        replace(P40, compute_capability=(5, 0)),
    ),
    "ollama-pascal-driver": (
        replace(P40, driver="550.90.07"),
        replace(P40, driver="550.90.07", image="ollama/ollama:0.24.0"),
    ),
    "ollama-driver": (
        replace(P40, compute_capability=(7, 0), driver="535.183.06"),
        replace(P40, compute_capability=(7, 0), driver="550.90.07"),
    ),
    "ollama-num-parallel": (NUM_PARALLEL, replace(NUM_PARALLEL, model="llama3.1:8b")),
    **{
        f"{engine}-below-ampere": (
            replace(V100, engine=engine, image=image),
            replace(A100, engine=engine, image=image),
        )
        for engine, image in (
            ("sglang", "lmsysorg/sglang:v0.5.6-cu126"),
            ("tensorrt-llm", "nvcr.io/nvidia/tensorrt-llm/release:1.1.0"),
        )
    },
    **{
        f"removed-{name}": (replace(V100, arguments={name: "x"}), vllm("0.12.0", arguments={name: "x"}))
        for name in REMOVED
    },
}


def rows(question: Question) -> dict[str, Answer]:
    return {answer.row: answer for answer in answers(question)}


def test_every_row_is_tested_and_named_once() -> None:
    assert {row.name for row in all_rows()} == set(CASES)
    assert [name for name, number in Counter(row.name for row in all_rows()).items() if number > 1] == []


@pytest.mark.parametrize("name", CASES)
def test_a_row_holds_where_it_should_and_not_beside_that(name: str) -> None:
    held, missed = CASES[name]
    row = next(row for row in all_rows() if row.name == name)
    answer = rows(held)[name]
    assert (answer.verdict, answer.source, answer.anchor) == (row.verdict, row.source, row.anchor)
    assert answer.reason
    assert answer.remedy
    assert re.search(r"\{\w*\}|None", answer.reason + answer.remedy) is None
    assert name not in rows(missed)


@pytest.mark.parametrize("question", [V100, T4, A100, L4, P40], ids=lambda question: question.card)
def test_nothing_speaks_against_the_pinned_images(question: Question) -> None:
    assert answers(question) == []


def test_the_default_models_run_on_their_cards() -> None:
    qwen = replace(
        V100,
        arguments={"dtype": "half", "block-size": 128},
        quantization="gptq",
        quantization_bits=8,
        torch_dtype="float16",
    )
    assert answers(qwen) == []


def test_what_is_unknown_is_not_concluded_from() -> None:
    blank = Question("vllm", "vllm/vllm-openai:v0.33.0", "?", None, quantization="fp8", torch_dtype="bfloat16")
    assert answers(blank) == []
    assert answers(replace(P40, driver="")) == []


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_a_card_is_known_by_its_capability_and_not_by_its_name(row: Any) -> None:
    held, _ = CASES[row.name]
    assert row.name in rows(replace(held, card="a card of another name"))


def test_the_worst_comes_first() -> None:
    question = vllm(
        "0.20.0",
        arguments={"dtype": "auto"},
        torch_dtype="bfloat16",
        environment={"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"},
    )
    assert [answer.verdict for answer in answers(question)] == ["refuse", "warn", "note"]


@pytest.mark.parametrize(
    ("image", "version", "cuda", "certain", "fork"),
    [
        ("vllm/vllm-openai:v0.19.1", "0.19.1", 12, True, False),
        ("vllm/vllm-openai:v0.19.1@sha256:" + "a" * 64, "0.19.1", 12, True, False),
        ("registry.example.org:5000/vllm/vllm-openai:v0.20.0", "0.20.0", 13, True, False),
        ("vllm/vllm-openai:v0.20.0-cu129", "0.20.0", 12, True, False),
        ("vllm/vllm-openai:v0.19.1-cu130", "0.19.1", 13, True, False),
        ("vllm/vllm-openai:v0.19.1-x86_64", "0.19.1", 12, True, False),
        ("vllm/vllm-openai:v0.8.5.post1", "0.8.5", 12, True, False),
        ("vllm/vllm-openai:latest", "0.33.0", 13, False, False),
        ("vllm/vllm-openai", "0.33.0", 13, False, False),
        ("vllm/vllm-openai:nightly-0123abc", "0.33.0", 13, False, False),
        ("vllm/vllm-openai@sha256:" + "a" * 64, "0.19.1", 12, False, False),
        ("vllm/vllm-openai:gemma", "0.19.1", 12, False, False),
        ("someone/vllm-v100:v0.25.1", "0.25.1", 13, True, True),
        ("nvcr.io/nvidia/vllm:25.10-py3", "0.19.1", 12, False, True),
        ("ollama/ollama:0.32.15", "0.32.15", 12, True, False),
        ("ollama/ollama:latest", "0.32.15", 12, False, False),
    ],
)
def test_what_an_image_is(image: str, version: str, cuda: int, certain: bool, fork: bool) -> None:
    found = engine_version(image)
    assert (found.version, found.cuda, not found.assumed, found.fork) == (version, cuda, certain, fork)
    assert version in found.assumed or certain


def test_latest_is_refused_where_every_later_release_is() -> None:
    verdicts = {answer.row: answer.verdict for answer in answers(replace(V100, image="vllm/vllm-openai:latest"))}
    assert verdicts == {"vllm-volta": "refuse", "version-assumed": "warn"}


def test_an_unknown_tag_is_warned_of_with_what_was_assumed() -> None:
    (answer,) = answers(replace(V100, image="vllm/vllm-openai:gemma"))
    assert (answer.verdict, answer.anchor) == ("warn", "unknown-image")
    assert "'gemma'" in answer.reason
    assert "0.19.1 is assumed" in answer.reason


def test_nothing_is_refused_for_a_version_that_is_only_assumed() -> None:
    question = replace(V100, image="vllm/vllm-openai:gemma", arguments={"task": "embed", "dtype": "bfloat16"})
    verdicts = {answer.row: answer.verdict for answer in answers(question)}
    assert verdicts == {"version-assumed": "warn", "removed-task": "warn", "bfloat16-asked": "refuse"}


def test_a_fork_may_do_what_the_release_cannot() -> None:
    found = rows(replace(V100, image="someone/vllm-v100:v0.25.1", driver="590.48.01"))
    assert (found["vllm-volta"].verdict, found["third-party-image"].verdict) == ("warn", "warn")
    assert found["driver-after-580"].verdict == "refuse"  # no image changes the driver


def test_an_image_of_any_name_is_of_the_engine_that_is_described() -> None:
    found = rows(replace(P40, image="registry.example.org/embedding@sha256:" + "a" * 64, driver="535.183.01"))
    assert (found["ollama-pascal-driver"].verdict, "0.32.15 is assumed" in found["version-assumed"].reason) == (
        "warn",
        True,
    )


def test_every_row_names_a_place_that_exists() -> None:
    known = set(re.findall(r'<a id="([^"]+)"></a>', (PROJECT / "docs/troubleshooting.md").read_text(encoding="utf-8")))
    assert {row.anchor for row in all_rows()} - known == set()


def test_the_page_is_that_of_the_table() -> None:
    written = (PROJECT / "docs/compatibility.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m stoker.plan.compatibility.page > docs/compatibility.md"

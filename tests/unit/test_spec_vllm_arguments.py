"""Arguments are compared with what the pinned version's own parser accepts."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from support.description import Description

from stoker.spec import vllm

ROOT = Path(__file__).resolve().parents[2]


def test_the_list_is_that_of_the_released_parser() -> None:
    made = runpy.run_path(str(ROOT / "scripts/vllm-arguments"), run_name="imported")["allowed"]()
    assert made == vllm.known()
    assert made["version"] == "0.19.1"
    assert len(made["arguments"]) > 150


@pytest.mark.parametrize(
    ("name", "value", "reason", "remedy"),
    [
        ("max-model-length", 8192, "has no --max-model-length", "did you mean 'max-model-len'?"),
        ("enforce-eager", "yes", "is a switch", "True or False"),
        ("max-num-seqs", "16", "it is a str", "a whole number"),
        ("max-num-seqs", True, "it is a bool", "a whole number"),
        ("dtype", "fp16", "must be one of", "one of these"),
        ("task", "embed", "does not know --task", "runner = 'pooling'"),
        ("max_model_len", 8192, "without dashes in front and with -", "'max-model-len'"),
        ("config", "/config/vllm.json", ".yaml", "YAML"),
        ("gpu-memory-utilization", 45, "above 0 and at most 1", "0.9"),
    ],
)
def test_what_it_would_refuse_is_refused_before(name: str, value: vllm.Argument, reason: str, remedy: str) -> None:
    ((found, why, do),) = vllm.problems_of({name: value}, "0.19.1")
    assert found == name
    assert reason in why
    assert remedy in do


def test_another_version_is_judged_only_by_what_is_known_of_it() -> None:
    assert vllm.problems_of({"new-in-0-21": 1, "max-num-seqs": "16"}, "0.21.0") == []
    assert vllm.problems_of({"task": "embed"}, "0.21.0")


@pytest.mark.parametrize(
    "name", ["max-model-len", "compilation-config.cudagraph_mode", "shutdown-timeout", "kv-cache-memory-bytes"]
)
def test_what_it_accepts_passes(name: str) -> None:
    assert vllm.problems_of({name: 5}, "0.19.1") == []


def test_several_gpus_need_as_many_ranks(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit("group_data/llm.py", '"gpus": [2]', '"gpus": [1, 2]')
    found = [problem for problem in description.problems() if "parallel" in problem.reason]
    assert [(problem.instance, problem.value) for problem in found] == [("vllm_qwen_gpu2", "[1, 2]")]
    assert "'tensor-parallel-size': 2" in found[0].remedy

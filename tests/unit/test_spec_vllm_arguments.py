"""Arguments are compared with what the pinned version's own parser accepts."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from support.description import Description

from stoker.spec import vllm

ROOT = Path(__file__).resolve().parents[2]

QUIET = ["--disable-access-log-for-endpoints", "/health,/metrics"]


def test_the_list_is_that_of_the_released_parser() -> None:
    made = runpy.run_path(str(ROOT / "scripts/vllm-arguments"), run_name="imported")["allowed"]()
    assert made == vllm.known()
    assert made["version"] == "0.19.1"
    assert len(made["arguments"]) > 150


@pytest.mark.parametrize(
    ("name", "value", "reason", "remedy"),
    [
        ("max-model-length", 8192, "has no --max-model-length", "did you mean 'max-model-len'?"),
        ("max-model-length.x", 8192, "has no --max-model-length", "did you mean 'max-model-len'?"),
        ("enforce-eager", "yes", "is a switch", "True or False"),
        ("max-num-seqs", "16", "it is a str", "a whole number"),
        ("max-num-seqs", True, "it is a bool", "a whole number"),
        ("dtype", "fp16", "must be one of", "one of these"),
        ("task", "embed", "does not know --task", "runner = 'pooling'"),
        ("max_model_len", 8192, "without dashes in front and with -", "'max-model-len'"),
        ("config", "/config/vllm.json", ".yaml", "YAML"),
        ("gpu-memory-utilization", 45, "above 0 and at most 1", "0.9"),
        ("quantization", True, "it takes a value", "write the value"),
        ("chat-template", False, "it takes a value", "write the value"),
        ("max-lora-rank", 3, "must be one of 1, 8, 16", "one of these"),
        ("max-lora-rank", True, "must be one of 1, 8, 16", "one of these"),
        ("max-lora-rank", 16.0, "must be one of 1, 8, 16", "one of these"),
        ("dtype.kind", "half", "--dtype has no keys", "'dtype'"),
        ("no-enforce-eager", False, "turns that around", "'enforce-eager': True"),
        ("enable-auto-tool-choice", True, "needs --tool-call-parser", "add 'tool-call-parser'"),
        ("enable-log-outputs", True, "needs --enable-log-requests", "add 'enable-log-requests'"),
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"enforce-eager": True}, ["--enforce-eager"]),
        ({"enforce-eager": False}, ["--no-enforce-eager"]),
        ({"no-enforce-eager": True}, ["--no-enforce-eager"]),
        ({"headless": True}, ["--headless"]),
        # There is no --no-headless, and off is what it is without being named.
        ({"headless": False, "seed": 1}, ["--seed", "1"]),
        ({"new-in-0-21": False}, ["--no-new-in-0-21"]),
        ({"seed": None}, []),
        # A key without a value would take the next word for its value.
        ({"default-chat-template-kwargs.think": False}, ["--default-chat-template-kwargs.think", "false"]),
        ({"compilation-config.x.y": True}, ["--compilation-config.x.y", "true"]),
        ({"max-model-len": -1}, ["--max-model-len=-1"]),
        ({"cpu-offload-gb": -0.5}, ["--cpu-offload-gb=-0.5"]),
        ({"response-role": "-x"}, ["--response-role=-x"]),
        ({"response-role": ""}, ["--response-role", ""]),
    ],
    ids=str,
)
def test_the_words_of_the_command_line(arguments: dict[str, vllm.Argument], words: list[str]) -> None:
    assert vllm.to_argv(arguments) == words


@pytest.mark.parametrize(
    ("image", "written", "words"),
    [
        ("vllm/vllm-openai:v0.19.1", {}, QUIET),
        ("registry.lan:5000/vllm:0.16.0@sha256:" + "0" * 64, {}, QUIET),
        ("vllm/vllm-openai:v0.19.1", {"disable-access-log-for-endpoints": "/ping"}, [QUIET[0], "/ping"]),
        ("vllm/vllm-openai:v0.19.1", {"disable-access-log-for-endpoints": None}, []),
        ("vllm/vllm-openai:v0.15.1", {}, []),
        ("registry.lan:5000/vllm:ours", {}, []),
    ],
    ids=str,
)
def test_looks_at_an_engine_are_not_logged(image: str, written: dict[str, vllm.Argument], words: list[str]) -> None:
    given = vllm.with_defaults(written, vllm.version_of(image))
    assert vllm.to_argv(given) == words
    assert vllm.problems_of(given, "0.19.1") == []


def test_what_goes_together_passes() -> None:
    both = {"enable-auto-tool-choice": True, "tool-call-parser": "hermes", "enable-log-outputs": False}
    assert vllm.problems_of(both, "0.19.1") == []


def test_a_json_argument_is_written_in_one_way() -> None:
    both = {"compilation-config": '{"mode": 3}', "compilation-config.cudagraph_mode": "NONE"}
    ((found, why, do),) = vllm.problems_of(both, "0.19.1")
    assert found == "compilation-config.cudagraph_mode"
    assert "forget everything in 'compilation-config'" in why
    assert "'compilation-config.KEY'" in do


def test_several_gpus_need_as_many_ranks(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.edit("group_data/llm.py", '"gpus": [2]', '"gpus": [1, 2]')
    found = [problem for problem in description.problems() if "parallel" in problem.reason]
    assert [(problem.instance, problem.value) for problem in found] == [("vllm_qwen_gpu2", "[1, 2]")]
    assert "'tensor-parallel-size': 2" in found[0].remedy

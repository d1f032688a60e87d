"""Model files: a directory that a person filled, one GGUF file of several, and what a deploy takes for complete."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.fleet import Data, make_fleet
from support.states import NOW, bare

from stoker.facts.manifest import MANIFEST, is_complete
from stoker.facts.state import HostState
from stoker.models.gguf import names_of, parts_of
from stoker.plan.downloads import addresses
from stoker.plan.local_models import problems
from stoker.plan.preflight import findings
from stoker.spec.fleet import Host
from stoker.spec.problems import SpecError
from stoker.spec.settings import HubModel, LocalModel
from stoker.steps import models

PLACE = "/data/projects/models/Own"
CONFIG = {"model_type": "qwen3", "vocab_size": 151936}
WHOLE = {"config.json": 700, "tokenizer.json": 9000, "model.safetensors": 5_000_000}


def state(files: dict[str, int], config: object = CONFIG) -> HostState:
    text = config if isinstance(config, str) else json.dumps(config)
    return HostState(model_files={PLACE: files}, contents={f"{PLACE}/config.json": text})


def said(files: dict[str, int], config: object = CONFIG, file: str | None = None) -> str:
    return "; ".join(problems(PLACE, LocalModel(directory="Own", file=file), state(files, config)))


@pytest.mark.parametrize(
    "files",
    [
        WHOLE,
        {"config.json": 700, "tokenizer.model": 9000, "pytorch_model.bin": 5_000_000},
        {"config.json": 700, "tekken.json": 9000, "consolidated.safetensors": 5_000_000},
        {
            "config.json": 700,
            "vocab.json": 1,
            "merges.txt": 1,
            "a-00001-of-00002.safetensors": 9999,
            "a-00002-of-00002.safetensors": 9999,
        },
    ],
)
def test_a_whole_directory(files: dict[str, int]) -> None:
    assert said(files) == ""


def test_the_vocabulary_of_a_model_that_also_sees() -> None:
    assert said(WHOLE, {"model_type": "internvl", "llm_config": {"vocab_size": 92553}}) == ""
    assert said(WHOLE, {"model_type": "omni", "thinker_config": {"text_config": {"vocab_size": 1}}}) == ""


@pytest.mark.parametrize(
    ("files", "config", "words"),
    [
        ({}, CONFIG, "it is not there, or it is empty"),
        ({**WHOLE, "config.json": 2}, "{", "config.json cannot be read as JSON"),
        ({**WHOLE}, "[]", "config.json holds no object"),
        ({**WHOLE}, {"vocab_size": 5}, "config.json names no model_type"),
        ({**WHOLE}, {"model_type": "x"}, "config.json has no vocab_size"),
        ({**WHOLE}, {"model_type": "x", "vocab_size": 0}, "config.json has no vocab_size"),
        ({"tokenizer.json": 1, "model.safetensors": 5000}, "", "config.json is missing"),
        ({"config.json": 1, "vocab.json": 1, "model.safetensors": 5000}, CONFIG, "it has no tokenizer"),
        ({"config.json": 1, "tokenizer.json": 1}, CONFIG, "it has no weights"),
        (
            {**WHOLE, "model.safetensors": 133},
            CONFIG,
            "model.safetensors has 133 bytes: it is empty, or a pointer of Git LFS",
        ),
        (
            {"config.json": 1, "tokenizer.json": 1, "a-00001-of-00002.safetensors": 5000},
            CONFIG,
            "a-00002-of-00002.safetensors is missing",
        ),
    ],
)
def test_what_is_lacking_is_named(files: dict[str, int], config: object, words: str) -> None:
    assert words in said(files, config)


def test_a_gguf_file_needs_no_configuration() -> None:
    assert said({"a.gguf": 5000}, "", "a.gguf") == ""
    assert "a.gguf is missing" in said({"b.gguf": 5000}, "", "a.gguf")
    assert "a-00002-of-00002.gguf is missing" in said({"a-00001-of-00002.gguf": 5000}, "", "a-00001-of-00002.gguf")


def local(data: Data) -> None:
    data["all"]["models"]["qwen2.5-14b"] = {"directory": "Own"}


def test_a_deploy_is_refused_before_anything_is_touched() -> None:
    host = make_fleet(local).hosts[0]
    (refusal,) = [one for one in findings(host, bare(host), NOW) if one.check == "local models"]
    assert (refusal.severity, refusal.anchor, refusal.instance) == ("refuse", "local-model", "vllm_qwen_gpu2")
    assert PLACE in refusal.reason
    assert PLACE not in models.wanted(host), "nothing is downloaded"
    there = replace(bare(host), model_files={PLACE: WHOLE}, contents={f"{PLACE}/config.json": json.dumps(CONFIG)})
    assert [one for one in findings(host, there, NOW) if one.check == "local models"] == []


def test_names_of_parts() -> None:
    assert (names_of("q.gguf"), parts_of("q.gguf")) == (["q.gguf"], "q.gguf")
    assert names_of("q-00001-of-00003.gguf") == [f"q-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    assert parts_of("q-00001-of-00003.gguf") == "q-?????-of-00003.gguf"


def gguf(file: str) -> HubModel:
    return HubModel(repository="a/b", directory="b", file=file)


def test_another_file_of_the_same_repository_is_not_there_yet() -> None:
    manifest = {"repository": "a/b", "revision": "main", "files": {"q4.gguf": {"size": 5}}}
    found = HostState(contents={f"/m/b/{MANIFEST}": json.dumps(manifest)}, model_files={"/m/b": {"q4.gguf": 5}})
    assert is_complete("/m/b", gguf("q4.gguf"), found)
    assert not is_complete("/m/b", gguf("q8.gguf"), found)


def _with_gguf(data: Data, **models_: dict[str, Any]) -> None:
    data["all"]["models"]["qwen2.5-14b"] = {"repository": "a/b", "directory": "b", "file": "q4.gguf"}
    data["llm"]["stacks"][0]["instances"][4].update({"engine": "llama-cpp", "arguments": {}})


def test_two_downloads_into_one_directory_are_refused() -> None:
    def change(data: Data) -> None:
        _with_gguf(data)
        directory = data["all"]["models"]["llama3.1-8b"]["directory"]
        data["all"]["models"]["qwen2.5-14b"]["directory"] = directory

    with pytest.raises(SpecError, match=r"qwen2.5-14b would be downloaded where another model is"):
        make_fleet(change)


def test_a_part_of_a_host_fetches_with_the_image_of_the_whole() -> None:
    host: Host = make_fleet(_with_gguf).hosts[0]
    part = host.only(["vllm_qwen_gpu2"])
    (_, image) = models.wanted(part)["/data/projects/models/b"]
    assert image == "vllm/vllm-openai:v0.19.1"
    assert set(part.images()) <= set(host.images())


def test_a_gguf_file_that_was_copied_needs_no_hub() -> None:
    host = make_fleet(_with_gguf).hosts[0].only(["vllm_qwen_gpu2"])
    found = bare(host)
    assert "https://huggingface.co" in addresses(host, found)
    assert "https://ghcr.io" in addresses(host, found)
    copied = replace(found, model_files={"/data/projects/models/b": {"q4.gguf": 5000}})
    assert "https://huggingface.co" not in addresses(host, copied)

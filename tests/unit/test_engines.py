"""Engines as modules: what each makes of an instance, and that one more file is one more engine."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.fleet import Data, make_fleet
from support.states import bare

from stoker.engine import registry
from stoker.engine.registry import NAMES, engine_of
from stoker.models.card import CardFile, Cards, ModelCard, Source
from stoker.plan.compatibility import Question, answers
from stoker.plan.memory.predict import GIB
from stoker.plan.memory_plan import plan_host
from stoker.render.compose import Service, services
from stoker.spec.fleet import Fleet
from stoker.spec.problems import SpecError
from stoker.steps.stack import uuids

PROJECT = Path(__file__).resolve().parents[2]
GGUF = {"repository": "Qwen/Qwen3-4B-GGUF", "directory": "Qwen3-4B-GGUF", "file": "Qwen3-4B-Q4_K_M.gguf"}
FILES = {"repository": "Qwen/Qwen3-4B", "directory": "Qwen3-4B"}
IMAGES = {
    "transformers": "stoker/transformers:5.19.0-1",
    "llama-cpp": "ghcr.io/ggml-org/llama.cpp:server-cuda-b11312",
    "sglang": "lmsysorg/sglang:v0.5.6-cu126",
    "tensorrt-llm": "nvcr.io/nvidia/tensorrt-llm/release:1.1.0",
}
SOME = Source(revision="test", config="test", files="test")


def fleet(
    engine: str, arguments: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **more: Any
) -> Fleet:
    """The default fleet with another engine in the place of Qwen's."""

    def change(data: Data) -> None:
        data["all"]["models"]["qwen2.5-14b"] = model or (GGUF if engine == "llama-cpp" else FILES)
        data["all"]["versions"].update(IMAGES)
        qwen = data["llm"]["stacks"][0]["instances"][4]
        qwen.update({"engine": engine, "arguments": arguments or {}, **more})

    return make_fleet(change)


def service(engine: str, arguments: dict[str, Any] | None = None, **more: Any) -> Service:
    host = fleet(engine, arguments, **more).hosts[0]
    return services(host, host.stacks[0], uuids(bare(host)))[4]


def test_what_llama_cpp_is_started_with() -> None:
    found = service("llama-cpp", {"ctx-size": 8192, "jinja": True, "flash-attn": "on"})
    assert found.entrypoint == ()
    assert list(found.command) == [
        *("--model", "/model_data/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf", "--alias", "qwen2.5-14b"),
        *("--host", "0.0.0.0", "--port", "8080", "--metrics"),
        *("--n-gpu-layers", "999", "--ctx-size", "8192", "--jinja", "--flash-attn", "on"),
    ]
    assert found.ports == ("11405:8080",)
    assert not found.takes_turns


def test_what_transformers_is_started_with() -> None:
    found = service("transformers", {"dtype": "half", "max-model-len": 8192})
    assert list(found.command) == [
        *("--model", "/model_data/Qwen3-4B", "--served-model-name", "qwen2.5-14b"),
        *("--device", "cuda:0", "--dtype", "half", "--max-model-len", "8192"),
    ]


def test_engines_that_measure_the_card_take_turns() -> None:
    sglang = service("sglang", {"mem-fraction-static": 0.8})
    assert sglang.takes_turns
    assert sglang.entrypoint[:2] == ("python3", "/stoker/gpu-turn.py")
    assert sglang.entrypoint[-3:] == ("python3", "-m", "sglang.launch_server")
    assert "http://127.0.0.1:30000/health" in sglang.entrypoint
    other = service("tensorrt-llm", {"free-gpu-memory-fraction": 0.8, "max-seq-len": 8192})
    assert other.entrypoint[-1] == "trtllm-serve"
    assert list(other.command[-4:]) == ["--free_gpu_memory_fraction", "0.8", "--max_seq_len", "8192"]


@pytest.mark.parametrize(
    ("engine", "arguments", "words"),
    [
        ("llama-cpp", {"ctx_size": 8192}, r"write 'ctx-size'"),
        ("llama-cpp", {"alias": "x"}, r"the instance's field `model`"),
        ("llama-cpp", {"ctx-size": "8k"}, r"a whole number above 0"),
        ("transformers", {"max-num-seqs": 8}, r"use dtype, device, max-model-len"),
        ("transformers", {"dtype": "fp8"}, r"it must be one of auto, half"),
        ("sglang", {"mem-fraction-static": 90}, r"a share of the card's memory"),
        ("sglang", {"tp": 2}, r"write 'tp-size'"),
        ("tensorrt-llm", {"max-seq-len": 0}, r"a whole number above 0"),
        ("ollama", {}, r"described as one of a model hub or a directory"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_remedy(engine: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        fleet(engine, arguments)


def test_a_gguf_file_is_for_llama_cpp_alone() -> None:
    with pytest.raises(SpecError, match=r"reads one .gguf file, and the model names none"):
        fleet("llama-cpp", model=FILES)
    with pytest.raises(SpecError, match="vLLM reads a directory of safetensors"):
        fleet("vllm", model=GGUF)


def test_an_engine_without_an_image_is_refused() -> None:
    def change(data: Data) -> None:
        data["all"]["models"]["qwen2.5-14b"] = GGUF
        data["all"]["versions"].pop("llama-cpp", None)
        data["llm"]["stacks"][0]["instances"][4].update({"engine": "llama-cpp", "arguments": {}})

    with pytest.raises(
        SpecError, match=r"add 'llama-cpp': 'ghcr.io/ggml-org/llama.cpp:server-cuda-bNNNNN' to `versions`"
    ):
        make_fleet(change)


def test_a_pool_has_one_engine() -> None:
    def change(data: Data) -> None:
        data["all"]["versions"].update(IMAGES)
        data["llm"]["stacks"][0]["instances"][3].update({"engine": "transformers", "arguments": {}})

    with pytest.raises(SpecError, match=r"of different engines \(vllm, transformers\)"):
        make_fleet(change)


@pytest.mark.parametrize("engine", ["sglang", "tensorrt-llm"])
def test_engines_for_newer_cards_are_refused_on_a_v100(engine: str) -> None:
    asked = Question(engine, IMAGES[engine], "Tesla V100", (7, 0), driver="580.65.06")
    told = [answer for answer in answers(asked) if answer.verdict == "refuse"]
    assert [answer.anchor for answer in told] == ["engine-needs-newer-card"]
    assert "7.0" in told[0].reason
    assert not [answer for answer in answers(replace(asked, compute_capability=(8, 6))) if answer.verdict == "refuse"]


def test_releases_in_tags() -> None:
    for name, image in IMAGES.items():
        assert [one.row for one in answers(Question(name, image, "RTX 3090", (8, 6), driver="580.65.06"))] == []


def card(config: dict[str, object], **files: int) -> ModelCard:
    sizes = {name.replace("__", "."): CardFile(size=size) for name, size in files.items()}
    return ModelCard(repository="a/b", revision="main", config=config, files=sizes, source=SOME)


CONFIG: dict[str, object] = {
    "model_type": "qwen3", "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "hidden_size": 2560, "max_position_embeddings": 40960, "vocab_size": 151936, "torch_dtype": "bfloat16",
}  # fmt: skip


def test_what_llama_cpp_takes_of_a_card() -> None:
    host = fleet("llama-cpp", {"ctx-size": 8192}).hosts[0]
    instance = host.stacks[0].instances[4]
    memory = engine_of("llama-cpp").memory
    assert memory is not None
    used = memory(instance, card(CONFIG, q__gguf=2_500_000_000), "q.gguf")
    cache = 2 * 36 * 8 * 128 * 2 * 8192
    assert used.least is not None
    assert used.least > 2_500_000_000 + cache
    assert used.bytes < 2_500_000_000 + cache + 1.5 * GIB
    with pytest.raises(ValueError, match=r"does not tell the size of q.gguf"):
        memory(instance, card(CONFIG), "q.gguf")


def test_every_engine_says_what_it_takes_and_serves() -> None:
    for name in NAMES:
        engine = engine_of(name)
        assert engine.paths, name
        assert engine.memory or name == "ollama" or engine.share({}) > 0, name
        assert engine.health_path.startswith("/")


def test_the_worked_example_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/engines.md says that one file makes an engine; so it is loaded as one and an instance of it rendered."""
    (code,) = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/engines.md").read_text(encoding="utf-8"), re.DOTALL)
    module = ModuleType("stoker.engines.text_lab")
    exec(compile(code, "docs/engines.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "stoker.engines.text_lab", module)
    for place in ("stoker.engine.registry.NAMES", "stoker.spec.instance.NAMES", "stoker.spec.settings.NAMES"):
        monkeypatch.setattr(place, (*NAMES, "text-lab"))
    for place in ("stoker.ready.engines.NAMES", "stoker.ready.diagnosis.NAMES"):
        monkeypatch.setattr(place, (*NAMES, "text-lab"))
    registry.engine_of.cache_clear()
    IMAGES["text-lab"] = "textlab/server:1.2.0"
    try:
        found = service("text-lab", {"context": 4096})
        assert found.command == ("serve", "/model_data/Qwen3-4B", "--name", "qwen2.5-14b", "--context", "4096")
        with pytest.raises(SpecError, match="a whole number above 0"):
            fleet("text-lab", {"context": "x"})
        from stoker.ready.engines import engine_diagnosis, engine_progress

        progress = engine_progress("text-lab", "loading 40 %")
        assert progress is not None
        assert progress.text == "loading weights: 40 %"
        why = engine_diagnosis("text-lab", "fatal: no licence found")
        assert why is not None
        assert why.id == "text-lab-licence"
    finally:
        del IMAGES["text-lab"]
        registry.engine_of.cache_clear()


def test_one_error_in_versions_blames_no_engine() -> None:
    def change(data: Data) -> None:
        data["all"]["versions"]["ngnix"] = data["all"]["versions"].pop("nginx")
        data["all"]["models"]["qwen2.5-14b"] = GGUF
        data["llm"]["stacks"][0]["instances"][4].update({"engine": "llama-cpp", "arguments": {}})

    with pytest.raises(SpecError) as told:
        make_fleet(change)
    assert {problem.field for problem in told.value.problems} == {"versions.ngnix"}


def test_a_share_of_another_engine_is_counted_as_it_is() -> None:
    host = fleet("sglang", {"mem-fraction-static": 0.8}).hosts[0]
    plan = plan_host(host, Cards(hub={"Qwen/Qwen3-4B": card(CONFIG, model__safetensors=8_000_000_000)}))
    (one,) = [entry for entry in plan.instances if entry.name == "vllm_qwen_gpu2"]
    assert one.prediction is None
    assert one.fixed is not None
    assert one.fixed.bytes == pytest.approx(0.8 * 31.68 * GIB, rel=0.01)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_cards_and_the_arguments_that_need_them(engine: str) -> None:
    name = "tensor-parallel-size" if engine == "vllm" else "tp-size"
    with pytest.raises(SpecError, match=f"{name} 2 x .* 1 is not the number of its GPUs"):
        fleet(engine, {name: 2})


def test_a_pool_of_another_kind_than_its_instances() -> None:
    with pytest.raises(SpecError, match="by its arguments vllm_qwen_gpu2 is for embeddings"):
        fleet("llama-cpp", {"embeddings": True})


def test_on_the_processor_there_are_no_cards() -> None:
    def change(data: Data) -> None:
        data["all"]["profiles"] = {"llama-cpp": "llama-cpp-cpu"}
        data["all"]["models"]["qwen2.5-14b"] = GGUF
        data["llm"]["stacks"][0]["instances"][4].update({"engine": "llama-cpp", "arguments": {}, "gpus": gpus})

    gpus: list[int] = [2]
    with pytest.raises(SpecError, match="its profile works on the processor"):
        make_fleet(change)
    gpus.clear()
    host = make_fleet(change).hosts[0]
    found = services(host, host.stacks[0], uuids(bare(host)))[4]
    assert found.gpus == ()
    assert "--n-gpu-layers" not in found.command

"""The memory plan of a host: the default fleet by its cards, by what is found on a host, and what is refused."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fleet import Data, instances
from support.states import NOW, bare, converged, fleet_and_host

from stoker.models.card import Cards, ModelCard, load_cards
from stoker.plan.finding import Finding
from stoker.plan.memory.predict import GIB
from stoker.plan.memory_plan import HostPlan, plan_host
from stoker.plan.memory_view import as_data, level, lines
from stoker.plan.preflight import findings
from stoker.plan.read_back import Measured, gap, logs_script, read, read_logs, sentence

ROOT = Path(__file__).resolve().parents[2]
KNOWN = load_cards([ROOT / "group_data"])
QWEN = "vllm_qwen_gpu2"


def arguments(group: str, number: int, **changes: Any) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        one = instances(data, group)[number]
        given = {name.replace("_", "-"): value for name, value in changes.items()}
        one["arguments"] = {**one["arguments"], **given}

    return change


def planned(group: str = "llm", change: Any = lambda data: None, known: Cards = KNOWN, **state: Any) -> HostPlan:
    _, host = fleet_and_host(group, change)
    return plan_host(host, known, replace(bare(host), **state) if state else None)


def said(change: Any) -> list[Finding]:
    _, host = fleet_and_host("llm", change)
    return [one for one in findings(host, bare(host), NOW, cards=KNOWN) if one.check == "GPU memory"]


def test_instances_with_the_same_finding_are_named_in_one() -> None:
    def too_long(data: Data) -> None:
        for number in range(4):
            arguments("llm", number, max_model_len=131072)(data)

    (finding,) = said(too_long)
    assert finding.instance == "vllm_llama_gpu0_0, vllm_llama_gpu0_1, vllm_llama_gpu1_0, vllm_llama_gpu1_1"


def test_the_default_fleet_fits_as_its_document_says() -> None:
    plan = planned()
    by_name = {one.name: one for one in plan.instances}
    assert [card.verdict.level for card in plan.cards] == ["fit", "fit", "fit"]
    assert all(by_name[name].verdict.level == "fit" for name in by_name if "llama" in name)  # type: ignore[union-attr]
    qwen = by_name[QWEN].prediction
    assert qwen is not None
    assert qwen.pool.bytes_per_token == 192 * 1024
    # 31.68 GiB, 1.5 GiB to compute: between the two rows of the worked example for 31.73 GiB.
    assert 51_712 < qwen.tokens < 54_400
    assert level([plan]) == "warn"  # 3.3 requests of full length, and 32 may run


def test_two_qwen_on_one_card_are_refused_with_what_would_fit() -> None:
    def two(data: Data) -> None:
        given = instances(data, "llm")
        given[0].update({key: given[4][key] for key in ("model", "arguments")}, gpus=[2])
        for one in (given[0], given[4]):
            one["arguments"] = {**one["arguments"], "gpu-memory-utilization": 0.5}

    assert level([planned(change=two)]) == "refuse"
    found = said(two)
    # Half a card holds the weights and no request of full length; and together they leave no room for CUDA itself.
    assert [one.instance for one in found if one.severity == "refuse"] == [f"vllm_llama_gpu0_0, {QWEN}"]
    assert all("gpu-memory-utilization" in one.remedy for one in found if one.severity == "refuse")
    (about,) = [one for one in found if one.reason.startswith("GPU 2 (Tesla V100-SXM2-32GB)")]
    assert "1 of these 2 instances" in about.remedy


def test_a_context_that_the_cache_cannot_hold_is_refused_with_a_length_that_was_checked() -> None:
    change = arguments("llm", 4, gpu_memory_utilization=0.6, max_model_len=32768)
    refusal, *_ = said(change)
    assert (refusal.severity, refusal.instance, refusal.anchor) == ("refuse", QWEN, "plan-memory")
    shorter = int(refusal.remedy.split("max-model-len ")[1].split()[0])
    assert said(arguments("llm", 4, gpu_memory_utilization=0.6, max_model_len=shorter)) == []


def test_a_deploy_of_the_default_fleet_has_nothing_to_say() -> None:
    for group in ("llm", "embedding"):
        fleet, host = fleet_and_host(group)
        assert findings(host, converged(fleet, host), NOW, cards=KNOWN) == []


def test_the_cards_that_are_there_count_and_not_those_that_are_described() -> None:
    _, host = fleet_and_host("llm")
    small = tuple(replace(gpu, memory_mib=16384) for gpu in bare(host).gpus)
    plan = planned(gpus=small)
    assert all(card.measured and card.sum.total < 16 * GIB for card in plan.cards)
    assert level([plan]) == "refuse"


def test_files_on_the_host_count_when_they_are_complete() -> None:
    fleet, host = fleet_and_host("llm")
    plan = plan_host(host, KNOWN, converged(fleet, host))
    weights = {one.weights for one in plan.instances}
    assert {(one.bytes, one.source) for one in weights if one} == {
        (5_000_000, "sizes of the safetensors files on the host")
    }
    assert "on the host" not in str(plan_host(host, KNOWN, bare(host)).instances[0].weights)


def test_a_model_without_a_card_is_not_guessed() -> None:
    plan = planned(known=Cards())
    assert {one.unknown.split(" of ")[0] for one in plan.instances} == {"there is no card"}
    assert level([plan]) == "warn"
    text = "\n".join(lines(plan, {}))
    assert "stoker models describe Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8" in text


@pytest.mark.parametrize(("written", "length"), [("8k", 8000), ("8K", 8192), ("16384", 16384), (4096, 4096)])
def test_lengths_are_read_as_vllm_reads_them(written: str | int, length: int) -> None:
    plan = planned(change=arguments("llm", 4, max_model_len=written))
    assert [one.prediction.instance.max_model_len for one in plan.instances if one.prediction][-1] == length


def test_the_same_on_a_screen_and_as_json() -> None:
    plan = planned()
    text = "\n".join(lines(plan, {}))
    assert "vllm_llama_gpu0_0, vllm_llama_gpu0_1" in text
    assert "what would fit: max-num-seqs 13 or max-model-len 6656" in text
    bars = [line for line in text.splitlines() if "█ weights" in line]
    assert [sum(line.split("]")[1].count(sign) for sign in "█▓▒░") for line in bars] == [40, 40, 40]
    data = json.loads(json.dumps(as_data(plan, {QWEN: Measured(54_400, 3.32, 9.97)})))
    qwen = data["instances"][-1]
    assert (qwen["name"], qwen["measured"]["tokens"]) == (QWEN, 54_400)
    assert qwen["measured"]["gap"] == pytest.approx(qwen["tokens"] / 54_400 - 1)


OLD = """INFO [gpu_worker.py:377] Available KV cache memory: 1.00 GiB
INFO [kv_cache_utils.py:1229] GPU KV cache size: 8,192 tokens
INFO [kv_cache_utils.py:1234] Maximum concurrency for 16,384 tokens per request: 0.50x"""
NEW = """INFO [gpu_worker.py:377] Available KV cache memory: 9.97 GiB
INFO [kv_cache_utils.py:1229] GPU KV cache size: 54,400 tokens, Maximum concurrency for 16,384 tokens per request: 3.32x"""


def test_the_newest_start_in_a_log_counts() -> None:
    assert read(f"{OLD}\n{NEW}".splitlines()) == Measured(54_400, 3.32, 9.97)
    assert read(["nothing of that"]) == Measured()


def test_a_gap_above_ten_percent_is_told() -> None:
    prediction = planned().instances[-1].prediction
    assert prediction is not None
    assert gap(prediction, Measured()) is None
    near = sentence(QWEN, prediction, Measured(prediction.tokens))
    far = sentence(QWEN, prediction, Measured(round(prediction.tokens / 1.11)))
    assert near is not None
    assert far is not None
    assert (near[0], far[0]) == (True, False)
    assert "docs/plan.md#gap" in far[1]


def test_logs_are_read_from_the_output_of_the_script(tmp_path: Path) -> None:
    import subprocess

    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\ntest $2 = b || exit 1\ncat <<'E'\nnoise\n{OLD}\n{NEW}\nE\n")
    docker.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", logs_script(["a", "b"])],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert read_logs(f"banner\n{done.stdout}@@stoker os\nID=debian\n") == {
        "a": Measured(),
        "b": Measured(54_400, 3.32, 9.97),
    }


def test_the_labs_cards_state_what_its_models_simulate() -> None:
    models = {one["repository"]: one for one in tomllib.loads((ROOT / "lab/models/models.toml").read_text())["model"]}
    overlay = load_cards([ROOT / "lab/group_data"]).hub
    used = {model for model in KNOWN.hub if model in models}
    assert used == set(overlay)
    for repository, card in overlay.items():
        assert isinstance(card, ModelCard)
        assert card.simulated_weights == round(models[repository]["weights_gib"] * GIB)
        # A repository of GGUF files has no configuration: its card has that of the model that the files were made of.
        origin = models[repository].get("config", repository)
        (config,) = (ROOT / "lab/models/configs" / origin).glob("config.json")
        assert card.config == json.loads(config.read_text())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"max_model_len": 0}, "max-model-len = 0 is no number"),
        ({"block_size": -16}, "block-size = -16 is no number"),
        ({"pipeline_parallel_size": -1, "tensor_parallel_size": -1}, "tensor-parallel-size = -1 is no number"),
    ],
)
def test_arguments_that_cannot_be_counted_with_are_named(changes: dict[str, Any], why: str) -> None:
    (one,) = [one for one in planned(change=arguments("llm", 4, **changes)).instances if one.name == QWEN]
    assert why in one.unknown


def with_config(**changes: Any) -> Cards:
    """The default cards, with changes to the configuration of Qwen."""
    repository = "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8"
    card = KNOWN.hub[repository]
    return Cards(
        {**KNOWN.hub, repository: card.model_copy(update={"config": {**card.config, **changes}})}, KNOWN.ollama
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"max_position_embeddings": 0},
        {"max_position_embeddings": -1},
        {"rope_scaling": {"rope_type": "linear", "factor": 0}},
        {"rope_scaling": {"rope_type": "linear", "factor": float("inf")}},
        {"attn_type_list": [[1]]},
        {"quantization_config": "gptq"},
        {"quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": 0}},
        {"quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": "x"}},
        {"quantization_config": {"quant_method": "gptq", "bits": 8, "modules_to_not_convert": 5}},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": 3}},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 128]}},
    ],
)
def test_a_card_with_a_strange_configuration_leaves_its_instance_unknown(changes: dict[str, Any]) -> None:
    plan = planned(change=arguments("llm", 4, max_model_len=None), known=with_config(**changes))
    (one,) = [one for one in plan.instances if one.name == QWEN]
    assert one.unknown
    assert all(each.prediction for each in plan.instances if each.name != QWEN)


def test_a_context_beyond_the_models_own_is_refused_with_one_that_starts() -> None:
    two_cards = {"tensor_parallel_size": 2, "max_num_seqs": 8}

    def change(length: int, **environment: str) -> Callable[[Data], None]:
        def both(data: Data) -> None:
            arguments("llm", 4, max_model_len=length, **two_cards)(data)
            instances(data, "llm")[4].update(gpus=[1, 2], environment=environment)
            instances(data, "llm")[2:4] = []

        return both

    (refusal,) = [one for one in said(change(40_000)) if one.instance == QWEN]
    assert (refusal.severity, refusal.remedy) == ("refuse", "max-model-len 32768")
    assert "the 32768 tokens that the model's configuration allows" in refusal.reason
    assert said(change(32_768)) == []
    assert said(change(40_000, VLLM_ALLOW_LONG_MAX_MODEL_LEN="1")) == []


def alone(cards: int, **changes: Any) -> tuple[str, tuple[str, ...]]:
    """Qwen by itself on so many cards: its level, and what would help."""
    _, host = fleet_and_host("llm")
    stack = host.stacks[0]
    qwen = stack.instances[4]
    given = {**qwen.arguments, "max-num-seqs": 8, **{name.replace("_", "-"): value for name, value in changes.items()}}
    qwen = qwen.model_copy(update={"gpus": tuple(range(cards)), "arguments": given})
    stack = stack.model_copy(update={"instances": (qwen,), "gateway": None})
    verdict = plan_host(replace(host, stacks=(stack,)), KNOWN).instances[0].verdict
    assert verdict is not None
    return verdict.level, tuple(remedy for finding in verdict.findings for remedy in finding.remedies)


def test_heads_that_the_cards_cannot_share_are_refused_with_what_works() -> None:
    in_turn = "pipeline-parallel-size 3 without tensor-parallel-size"
    assert alone(3, tensor_parallel_size=3) == ("refuse", ("tensor-parallel-size 2 on 2 cards", in_turn))
    assert alone(2, tensor_parallel_size=2) == ("fit", ())
    assert alone(3, pipeline_parallel_size=3) == ("fit", ())


def test_weights_that_lie_in_the_machines_memory_are_not_on_the_card() -> None:
    assert alone(1, gpu_memory_utilization=0.45)[0] == "refuse"
    assert alone(1, gpu_memory_utilization=0.45, cpu_offload_gb=10)[0] == "fit"


@pytest.mark.parametrize("changes", [{"quantization": "fp8"}, {"offload_group_size": 8}])
def test_weights_that_shrink_while_they_are_loaded_are_not_guessed(changes: dict[str, Any]) -> None:
    plan = planned(change=arguments("llm", 4, **changes), known=with_config(quantization_config=None))
    (one,) = [one for one in plan.instances if one.name == QWEN]
    assert "not computed here" in one.unknown


def test_an_estimate_warns_and_refuses_only_by_its_lower_end() -> None:
    """Ollama's model beside vLLM: 1.5 to 2.0 GiB, and 31.68 GiB less 0.94 of them are 1.90."""
    _, host = fleet_and_host("llm")
    _, other = fleet_and_host("embedding")
    stack, ollama = host.stacks[0], other.stacks[0].instances[0].model_copy(update={"gpus": (2,)})
    levels = {}
    for share in (0.85, 0.94, 0.98):
        qwen = stack.instances[4]
        qwen = qwen.model_copy(update={"arguments": {**qwen.arguments, "gpu-memory-utilization": share}})
        both = stack.model_copy(update={"instances": (qwen, ollama), "gateway": None})
        (card,) = plan_host(replace(host, stacks=(both,)), KNOWN).cards
        levels[share] = card.verdict.level
    assert levels == {0.85: "fit", 0.94: "warn", 0.98: "refuse"}


def test_more_cache_is_a_remedy_only_where_the_card_has_room_for_it() -> None:
    more = f"kv-cache-memory-bytes {3 * GIB}, if the card has no one else on it"
    assert alone(1, kv_cache_memory_bytes=GIB) == ("refuse", ("max-model-len 5376", more))
    # 15.50 GiB of weights, 12 of cache and what it takes to compute leave less than nothing to CUDA itself.
    level, remedies = alone(1, kv_cache_memory_bytes=GIB, max_model_len=32768, dtype="float32", max_num_seqs=256)
    assert (level, any("kv-cache-memory-bytes" in one for one in remedies)) == ("refuse", False)


def test_an_instance_whose_card_is_gone_is_shown() -> None:
    for group, name in (("llm", QWEN), ("embedding", "ollama_bge_1")):
        _, host = fleet_and_host(group)
        there = bare(host).gpus[:-1]
        text = "\n".join(lines(planned(group, gpus=there), {}))
        assert f"{name}[/]" in text
        assert "none of its cards is there" in text


@pytest.mark.parametrize("auto", [-1, "-1", "auto"])
def test_a_context_that_vllm_shortens_itself_is_what_the_card_holds_for_certain(auto: Any) -> None:
    def length(share: float) -> int:
        changes = arguments("llm", 4, max_model_len=auto, gpu_memory_utilization=share)
        (one,) = [one for one in planned(change=changes).instances if one.name == QWEN]
        assert one.prediction
        assert one.verdict
        assert one.verdict.level == "warn"  # one request and little more at a time
        return one.prediction.instance.max_model_len

    assert length(0.9) == 32768
    assert 16384 < length(0.7) < 32768
    assert alone(1, max_model_len=auto, gpu_memory_utilization=0.4)[0] == "refuse"

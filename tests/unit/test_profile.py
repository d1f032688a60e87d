"""A fleet whose vLLM is the build for CPUs: what is then checked, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from support.fleet import Data, instances
from support.states import bare, converged, fleet_and_host, probe_output, steps

from stoker.facts.state import HostState, parse
from stoker.plan.preflight import findings
from stoker.render.compose import compose_file
from stoker.smoke.check import CheckSkipped, Trace
from stoker.smoke.checks_host import HostWitness, memory_checks
from stoker.spec.problems import SpecError
from stoker.status.judge import judge
from stoker.steps import images

IMAGE = "vllm/vllm-openai:v0.32.0-cpu"
NOTE = f"no proof that {IMAGE} computes on a card: not applicable: CPU build"


def on_cpu(data: Data) -> None:
    data["all"]["profiles"] = {"vllm": "vllm-cpu"}
    data["all"]["versions"] = {**data["all"]["versions"], "vllm": IMAGE}


def reasons(state: HostState) -> list[str]:
    _, host = fleet_and_host("llm", on_cpu)
    return [refusal.reason for refusal in findings(host, state, state.time)]


def test_no_card_is_proved_and_the_plan_says_so() -> None:
    fleet, host = fleet_and_host("llm", on_cpu)
    assert "probes" not in steps(fleet, host, bare(host))
    assert images.notes(host) == [NOTE]


def test_cards_are_proved_without_a_profile() -> None:
    fleet, host = fleet_and_host("llm")
    assert "probes" in steps(fleet, host, bare(host))
    assert images.notes(host) == []


def test_the_engines_memory_is_compared_with_the_machines() -> None:
    _, host = fleet_and_host("llm", on_cpu)
    state = bare(host)
    assert reasons(replace(state, memory_kib=24 << 20)) == []
    assert reasons(replace(state, memory_kib=8 << 20)) == [
        "it has 8.0 GiB of memory, its engines need 14.5 (vllm_llama_gpu0_0 2.7, vllm_llama_gpu0_1 2.7, vllm_llama_gpu1_0 2.7, "
        "vllm_llama_gpu1_1 2.7, vllm_qwen_gpu2 2.7, the system 1.0): they are CPU builds"
    ]


def test_a_larger_cache_counts() -> None:
    def change(data: Data) -> None:
        on_cpu(data)
        for instance in instances(data, "llm"):
            instance["environment"] = {"VLLM_CPU_KVCACHE_SPACE": "4"}

    _, host = fleet_and_host("llm", change)
    (refusal,) = findings(host, replace(bare(host), memory_kib=24 << 20), bare(host).time)
    assert "need 29.5" in refusal.reason
    assert refusal.anchor == "host-memory"


def test_with_cards_the_machines_memory_does_not_matter() -> None:
    _, host = fleet_and_host("llm")
    state = bare(host)
    assert findings(host, replace(state, memory_kib=1 << 20), state.time) == []


def test_the_machines_memory_is_asked_for() -> None:
    _, host = fleet_and_host("llm", on_cpu)
    assert parse(probe_output(replace(bare(host), memory_kib=12345)).splitlines()).memory_kib == 12345


def test_shares_of_a_card_are_not_added_up() -> None:
    def change(data: Data) -> None:
        on_cpu(data)
        for instance in instances(data, "llm"):
            instance["arguments"] = {**instance["arguments"], "gpu-memory-utilization": 0.85}

    fleet_and_host("llm", change)  # two of them on one card


def test_a_profile_of_another_engine_is_refused() -> None:
    def change(data: Data) -> None:
        data["all"]["profiles"] = {"vllm": "ollama-cuda"}

    with pytest.raises(
        SpecError, match=r"'ollama-cuda' is no profile of vllm\n.*write one of vllm-cuda \(NVIDIA cards"
    ):
        fleet_and_host("llm", change)


def test_smoke_skips_the_cards_memory_and_says_why() -> None:
    _, host = fleet_and_host("llm", on_cpu)
    witness = HostWitness(host, shell=None, reached=True)
    checks = list(memory_checks(witness, [instance for _, instance in host.instances()]))
    assert len(checks) == 3
    for check in checks:
        with pytest.raises(CheckSkipped, match="not applicable: CPU build"):
            check.run(Trace())


def test_status_shows_no_memory_of_a_card() -> None:
    fleet, host = fleet_and_host("llm", on_cpu)
    found = judge(fleet, host, converged(fleet, host))
    assert [(entry.cards, entry.used_mib) for entry in found.instances] == [((), None)] * 5


def test_a_cpu_build_gets_shared_memory_and_a_card_build_does_not() -> None:
    for change, size in ((on_cpu, {"1gb"}), (lambda data: None, {None})):
        _, host = fleet_and_host("llm", change)
        compose = yaml.safe_load(compose_file(host, host.stacks[0], {0: "GPU-0", 1: "GPU-1", 2: "GPU-2"}))
        found = {entry.get("shm_size") for name, entry in compose["services"].items() if name != "nginx"}
        assert found == size

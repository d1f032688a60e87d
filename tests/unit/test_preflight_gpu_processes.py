"""Who else computes on a card, and whether what is left suffices for the instances that are to start there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.states import NOW, bare, cards, converged, fleet_and_host

from stoker.facts.gpus import GpuProcess
from stoker.facts.state import Container, HostState
from stoker.plan.finding import Finding
from stoker.plan.preflight import findings
from stoker.spec.fleet import Host

# gpu0: two Llama at 0.45 of 32768 MiB, gpu2: one Qwen at 0.85.
GPU0, QWEN_GPU = 0, 2
FREE_BESIDE_TWO_LLAMA = 3276  #: MiB: 32768 - 2 * 0.45 * 32768


def stranger(host: Host, gpu: int, used_mib: int | None, pid: int = 4711) -> GpuProcess:
    return GpuProcess(cards(host)[gpu].uuid, pid, "python3", used_mib)


def said(host: Host, state: HostState, *processes: GpuProcess) -> list[Finding]:
    return findings(host, replace(state, gpu_processes=processes), NOW)


@pytest.mark.parametrize(
    ("gpu", "used_mib", "severity"),
    [
        (GPU0, FREE_BESIDE_TWO_LLAMA, "warn"),
        (GPU0, FREE_BESIDE_TWO_LLAMA + 1, "refuse"),
        (QWEN_GPU, 4915, "warn"),
        (QWEN_GPU, 4916, "refuse"),
        (QWEN_GPU, None, "warn"),
    ],
)
def test_what_is_left_decides(gpu: int, used_mib: int | None, severity: str) -> None:
    _, host = fleet_and_host("llm")
    (found,) = said(host, bare(host), stranger(host, gpu, used_mib))
    assert (found.severity, found.anchor) == (severity, "gpu-processes")
    assert f"GPU {gpu}" in found.reason
    assert "python3 (process 4711" in found.reason
    assert "kill 4711" in found.remedy


def test_the_refusal_names_the_arithmetic_and_a_share_that_fits() -> None:
    _, host = fleet_and_host("llm")
    (found,) = said(host, bare(host), stranger(host, GPU0, 8192))
    assert found.reason == (
        "on GPU 0 computes something that is not described: python3 (process 4711, 8.0 GiB). 24.0 GiB are left, "
        "vllm_llama_gpu0_0 and vllm_llama_gpu0_1 ask for 28.8: they do not start when less is free"
    )
    assert found.remedy.endswith("or lower gpu-memory-utilization to 0.37 for each")
    assert 2 * 0.37 * 32 <= 24


def test_several_strangers_are_added_up() -> None:
    _, host = fleet_and_host("llm")
    (found,) = said(host, bare(host), stranger(host, GPU0, 2000, 7), stranger(host, GPU0, 2000, 8))
    assert found.severity == "refuse"
    assert "kill 7, kill 8" in found.remedy


def test_our_own_containers_are_no_strangers() -> None:
    fleet, host = fleet_and_host("llm")
    state = converged(fleet, host)
    mine = state.containers["vllm_qwen_gpu2"].id
    state = replace(state, gpu_containers={4711: mine})
    assert said(host, state, stranger(host, QWEN_GPU, 28000)) == []
    assert said(host, replace(state, gpu_containers={}), stranger(host, QWEN_GPU, 28000)) != []


def test_a_strangers_container_is_named_and_instances_that_run_are_not_refused() -> None:
    fleet, host = fleet_and_host("llm")
    state = converged(fleet, host)
    other = Container("notebook", "e" * 64, "sha256:1", "running", "2026-11-01T10:00:00Z", 0, "", "lab")
    state = replace(state, containers={**state.containers, "notebook": other}, gpu_containers={4711: other.id})
    (found,) = said(host, state, stranger(host, QWEN_GPU, 6000))
    assert found.severity == "warn"
    assert "python3 (container notebook, 5.9 GiB)" in found.reason
    assert "docker stop notebook" in found.remedy
    stopped = replace(state.containers["vllm_qwen_gpu2"], status="exited")
    state = replace(state, containers={**state.containers, "vllm_qwen_gpu2": stopped})
    (found,) = said(host, state, stranger(host, QWEN_GPU, 6000))
    assert found.severity == "refuse"


def test_ollama_does_not_ask_for_a_share_before_it_starts() -> None:
    _, host = fleet_and_host("embedding")
    (found,) = said(host, bare(host), stranger(host, 0, 22000))
    assert found.severity == "warn"
    assert "1.0 GiB of 22.5 are left" in found.reason

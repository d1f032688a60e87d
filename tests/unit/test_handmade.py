"""An earlier stack made by hand: recognised from the source documents' own files, and compared with what is described."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import handmade
from support.states import NOW, bare, cards, converged, fleet_and_host

from stoker.facts.gpus import GpuProcess
from stoker.facts.state import Container, HostState
from stoker.plan.finding import Finding
from stoker.plan.handmade import arguments, blockers, comparison, differences, repository
from stoker.plan.preflight import findings
from stoker.spec.fleet import Host
from stoker.steps import adopt, stack
from stoker.steps.action import Action

LLAMAS = ("vllm_llama_gpu0_0", "vllm_llama_gpu0_1", "vllm_llama_gpu1_0", "vllm_llama_gpu1_1")
QWEN = "vllm_qwen_gpu2"
FILE = {"llm": "memoryx-hybrid.yaml", "embedding": "bge-ha.yaml"}


def found_by_hand(group: str, project: str = "", **changes: object) -> tuple[Host, HostState]:
    """A host on which the documents' stack runs; ``changes`` to each of its containers."""
    _, host = fleet_and_host(group)
    containers = handmade.containers(FILE[group], project)
    state = bare(host)
    return host, replace(
        state,
        docker_version="28.5.2",
        packages={**state.packages, "docker-ce": "5:28.5.2-1~debian.13~trixie"},
        containers={name: replace(old, **changes) for name, old in containers.items()},  # type: ignore[arg-type]
    )


def with_container(state: HostState, old: Container) -> HostState:
    return replace(state, containers={**state.containers, old.name: old})


def refused(host: Host, state: HostState) -> list[Finding]:
    return [one for one in findings(host, state, NOW) if one.severity == "refuse"]


@pytest.mark.parametrize("project", ["", "stacks"], ids=["under the same project", "under another project"])
@pytest.mark.parametrize("group", ["llm", "embedding"])
def test_the_documents_stack_is_one_refusal_that_names_the_way_out(group: str, project: str) -> None:
    host, state = found_by_hand(group, project)
    (refusal,) = refused(host, state)
    assert all(name in refusal.reason for name in state.containers)
    assert f"{handmade.DIRECTORY}/{FILE[group]}" in refusal.reason
    assert "old -> new: image: " in refusal.reason
    assert "stoker adopt" in refusal.remedy
    assert (refusal.anchor, refusal.check) == ("container-name", "hand-made")


def test_what_differs_from_the_document_is_told_once_for_all_that_share_it() -> None:
    host, state = found_by_hand("llm")
    assert {str(one) for one in differences(comparison(host, state))} == {
        f"image: vllm/vllm-openai:latest -> vllm/vllm-openai:v0.19.1 ({', '.join([*LLAMAS, QWEN])})",
        "image: nginx:alpine -> nginx:1.30.6-alpine (vllm_nginx)",
        f"--trust-remote-code: on -> - ({', '.join([*LLAMAS, QWEN])})",
        f"--enable-prefix-caching: on -> - ({QWEN})",
        f"--enable-chunked-prefill: on -> - ({QWEN})",
        "configuration: /home/ops/stacks/nginx-hybrid.conf -> /opt/stoker/memoryx-hybrid/gateway/nginx-hybrid.conf (vllm_nginx)",
    }


def test_an_embedding_stack_without_restart_policy() -> None:
    host, state = found_by_hand("embedding")
    told = {str(one) for one in differences(comparison(host, state))}
    assert "restart: none -> always (ollama_bge_0, ollama_bge_1, bge_nginx)" in told
    assert not any(one.startswith(("GPU", "port", "model directory")) for one in told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gpus": ("0",)}, "GPU: 0 -> 1"),
        ({"gpus": ("all",)}, "GPU: 0, 1, 2 -> 1"),
        ({"mounts": (("/srv/models", "/model_data"),)}, "model directory: /srv/models -> /data/projects/models"),
        (
            {"command": ("--model=/model_data/Other", "--served_model_name", "x")},
            "model: Other -> Meta-Llama-3.1-8B-Instruct-GPTQ-INT4",
        ),
        ({"command": ("--model=/model_data/Other", "--served_model_name", "x")}, "served name: x -> llama3.1-8b"),
        ({"command": ("--max-model-len", "4096")}, "--max-model-len: 4096 -> 8192"),
        ({"command": ("--api-key", "s3cret")}, "--api-key: (not shown) -> -"),
    ],
)
def test_a_difference_is_told(changes: dict[str, object], told: str) -> None:
    host, state = found_by_hand("llm")
    name = "vllm_llama_gpu1_0"
    state = with_container(state, replace(state.containers[name], **changes))  # type: ignore[arg-type]
    lines = [str(one) for one in differences(comparison(host, state))]
    assert f"{told} ({name})" in lines
    assert "s3cret" not in "".join(lines)


def test_the_same_card_and_number_written_in_another_way_is_no_difference() -> None:
    host, state = found_by_hand("llm")
    old = state.containers[QWEN]
    same = replace(
        old,
        gpus=(f"nvidia.com/gpu={cards(host)[2].uuid}",),
        command=(f"--gpu-memory-utilization={0.85:.3f}", *old.command[:6], *old.command[8:]),
    )
    assert "--gpu-memory-utilization" in old.command[6:8]
    told = "".join(map(str, differences(comparison(host, with_container(state, same)))))
    assert "GPU" not in told
    assert "gpu-memory-utilization" not in told


def test_another_layout_is_recognised_by_port_and_image_and_goes_for_whom_it_blocks() -> None:
    """Other names, and one more container on a card that is described."""
    host, state = found_by_hand("llm")
    old = state.containers["vllm_llama_gpu0_0"]
    one = replace(old, name="vllm", project="vllm", ports=frozenset({11405}), gpus=("0",))
    extra = replace(one, name="vllm-extra", ports=frozenset({9000}), gpus=("1",))
    aside = replace(one, name="grafana", image="grafana/grafana:12", ports=frozenset({3000}), gpus=())
    state = replace(state, containers={old.name: old for old in (one, extra, aside)})
    assert {new: [old.name for old in olds] for new, olds in blockers(host, state).items()} == {
        "vllm_llama_gpu0_0": ["vllm"],
        "vllm_llama_gpu1_0": ["vllm-extra"],
    }
    (refusal,) = refused(host, state)
    assert "vllm, vllm-extra of the project vllm" in refusal.reason
    assert "grafana" not in refusal.reason


@pytest.mark.parametrize("project", ["monitoring", "memoryx-hybrid"])
def test_another_program_on_a_port_is_no_earlier_stack(project: str) -> None:
    host, state = found_by_hand("llm")
    grafana = replace(state.containers[QWEN], name="grafana", image="grafana/grafana:12", project=project)
    (refusal,) = refused(host, replace(state, containers={"grafana": grafana}))
    assert refusal.anchor == "port-taken"
    assert "adopt" not in str(refusal)


def test_stokers_own_containers_are_none() -> None:
    fleet, host = fleet_and_host("llm")
    assert blockers(host, converged(fleet, host)) == {}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("vllm/vllm-openai:latest", "vllm/vllm-openai"),
        ("nginx:alpine", "nginx"),
        ("docker.io/library/nginx", "nginx"),
        ("registry.example.org:5000/ollama/ollama@sha256:00", "ollama/ollama"),
    ],
)
def test_an_image_without_where_it_came_from_and_which(image: str, name: str) -> None:
    assert repository(image) == name


def test_a_command_line_is_read_by_name() -> None:
    assert arguments(["serve", "/m/X", "--a", "1", "--b_c=2", "--on", "--d", "3"]) == {
        "model": "/m/X",
        "a": "1",
        "b-c": "2",
        "on": "on",
        "d": "3",
    }


def plan(host: Host, state: HostState, *only: str) -> list[Action]:
    (entry,) = host.stacks
    return [*adopt.make_way(host, entry, state, only, "/keep"), *stack.container_actions(host, entry, state, only)]


def test_one_at_a_time_is_kept_removed_and_created() -> None:
    host, state = found_by_hand("llm")
    assert list(map(str, plan(host, state, QWEN))) == [
        f"keep {QWEN} in /keep, stop it and remove it (INTERRUPTS {QWEN})",
        f"{QWEN}: create in place of what was made by hand (INTERRUPTS {QWEN})",
    ]


def test_a_container_under_the_projects_name_that_nobody_described_is_not_removed() -> None:
    host, state = found_by_hand("llm")
    aside = replace(state.containers[QWEN], name="grafana", image="grafana/grafana:12", ports=frozenset(), gpus=())
    assert not any("grafana" in str(action) for action in plan(host, with_container(state, aside)))


def test_a_restart_of_docker_does_not_leave_the_old_ones_stopped() -> None:
    host, state = found_by_hand("embedding")
    quiet, loud = Action("look"), Action("restart dockerd", interrupts="3 running containers")
    assert adopt.and_start_again(host, state, [quiet]) == [quiet]
    (_, again) = adopt.and_start_again(host, state, [loud])
    assert again.script == "docker start ollama_bge_0 ollama_bge_1 bge_nginx"


def test_an_earlier_stacks_processes_on_the_cards_are_no_strangers() -> None:
    host, state = found_by_hand("llm", project="stacks")
    old = replace(state.containers[QWEN], name="qwen-by-hand")
    process = GpuProcess(state.gpus[2].uuid, 4711, "VLLM::EngineCore", 28_000)
    state = replace(state, containers={old.name: old}, gpu_processes=(process,))
    by_hand = replace(state, gpu_containers={4711: old.id})
    assert [one.check for one in refused(host, by_hand)] == ["hand-made"]
    assert "GPU processes" in [one.check for one in refused(host, state)]

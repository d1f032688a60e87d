"""What is still to come to each file system against what is free there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fleet import Data
from support.states import NOW, bare, converged, fleet_and_host

from stoker.facts.state import HostState
from stoker.facts.surroundings import DockerInfo
from stoker.models.card import CardFile, Cards, ModelCard, load_cards
from stoker.plan.finding import Finding
from stoker.plan.preflight import findings
from stoker.spec.fleet import Host

GIB = 1 << 30
MODELS = "/data/projects/models"
#: Room for everything, so that one path can be made small.
PLENTY = 500 * GIB


LLAMA = "hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4"
QWEN = "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8"
SHIPPED = load_cards([Path(__file__).resolve().parents[2] / "group_data"])


def replace_card(card: ModelCard, **changes: Any) -> ModelCard:
    return card.model_copy(update=changes)


def of(**gib: int) -> Cards:
    """Cards of models with one file of a size each, GiB, and nothing else of them."""
    named = {"llama": LLAMA, "qwen": QWEN}
    files = {name: {"model.safetensors": CardFile(size=size * GIB)} for name, size in gib.items()}
    return Cards(hub={named[name]: replace_card(SHIPPED.hub[named[name]], files=files[name]) for name in gib})


def with_disks(state: HostState, disks: Mapping[str, tuple[int, str]]) -> HostState:
    """``disks``: path -> bytes free and file system."""
    return replace(
        state,
        free_bytes={path: free for path, (free, _) in disks.items()},
        file_systems={path: system for path, (_, system) in disks.items()},
    )


def sizes(data: Data) -> None:
    """Images of known sizes: 20 GiB, 3 GiB and none worth mentioning."""
    data["all"]["image_gib"] = {"vllm/vllm-openai": 20, "ollama/ollama": 3, "nginx": 0}


def both(change: Callable[[Data], None]) -> Callable[[Data], None]:
    def all_of(data: Data) -> None:
        sizes(data)
        change(data)

    return all_of


def at_least(host: Host, state: HostState, disk: str, gib: float, **given: Any) -> list[Finding]:
    """With exactly that much room nothing is said; with a byte less there is one finding, which is returned."""

    def with_room(size: int) -> HostState:
        room = {
            path: size if state.file_systems.get(path, path) == disk else PLENTY
            for path in (*state.free_bytes, *state.file_systems)
        }
        return replace(state, free_bytes=room)

    assert findings(host, with_room(round(gib * GIB)), NOW, **given) == []
    found = findings(host, with_room(round(gib * GIB) - 1), NOW, **given)
    assert [one.anchor for one in found] == ["disk"]
    return found


def test_images_are_counted_where_docker_keeps_them() -> None:
    _, host = fleet_and_host("llm", sizes)
    disks = {"/var/lib": (0, "root"), MODELS: (0, "data"), "/srv/docker": (0, "big")}
    state = with_disks(bare(host), disks)
    (found,) = at_least(host, state, "root", 2 + 20)
    assert (found.severity, "vllm/vllm-openai:v0.19.1 20.0" in found.reason) == ("refuse", True)
    moved = replace(
        state,
        docker_version="28.5.2",
        packages={**state.packages, "docker-ce": "1"},
        docker_info=DockerInfo("/srv/docker"),
    )
    at_least(host, moved, "root", 2)
    at_least(host, moved, "big", 20)
    to_come = replace(state, contents={"/etc/docker/daemon.json": json.dumps({"data-root": "/srv/docker"})})
    at_least(host, to_come, "big", 20)


def test_containerds_image_store_keeps_them_packed_as_well() -> None:
    _, host = fleet_and_host("llm", sizes)
    state = with_disks(
        bare(host), {"/var/lib": (0, "root"), MODELS: (0, "data"), "/var/lib/containerd": (0, "containerd")}
    )
    asked = replace(state, contents={"/etc/docker/daemon.json": '{"features": {"containerd-snapshotter": true}}'})
    at_least(host, asked, "containerd", 2 * 20)
    running = replace(
        state,
        docker_version="29.0.0",
        packages={**state.packages, "docker-ce": "1"},
        docker_info=DockerInfo("/var/lib/docker", containerd_store=True),
    )
    at_least(host, running, "containerd", 2 * 20)

    def docker_29(data: Data) -> None:
        data["all"]["versions"]["docker"] = "29.0.1"

    _, fresh = fleet_and_host("llm", both(docker_29))
    at_least(fresh, state, "containerd", 2 * 20)
    # An older Docker that is upgraded keeps its store.
    upgraded = replace(running, docker_info=DockerInfo("/var/lib/docker"))
    at_least(fresh, upgraded, "root", 2 + 20)


def test_models_count_until_they_are_there() -> None:
    _, host = fleet_and_host("llm", sizes)
    state = with_disks(bare(host), {"/var/lib": (0, "root"), MODELS: (0, "data")})
    (found,) = at_least(host, state, "data", 1 + 6 + 16, cards=of(llama=6, qwen=16))
    assert f"{QWEN} 16.0" in found.reason
    assert found.severity == "refuse"
    at_least(host, state, "data", 1 + 6, cards=of(llama=6))
    half = {f"{MODELS}/Qwen2.5-14B-Instruct-GPTQ-Int8": {"model-1.safetensors": 10 * GIB}}
    at_least(host, replace(state, model_files=half), "data", 1 + 6 + 6, cards=of(llama=6, qwen=16))


def test_a_size_that_was_computed_warns() -> None:
    """The card of the default Qwen has no sizes of its files."""
    _, host = fleet_and_host("llm", sizes)
    state = with_disks(bare(host), {"/var/lib": (PLENTY, "root"), MODELS: (20 * GIB, "data")})
    warning, *more = [one for one in findings(host, state, NOW, cards=SHIPPED) if one.anchor == "disk"]
    assert (warning.severity, more) == ("warn", [])
    assert f"{QWEN} 15.5 (assumed)" in warning.reason
    assert f"{LLAMA} 5.3" in warning.reason


def test_excluded_files_are_not_downloaded_and_another_revision_is_a_guess() -> None:
    _, host = fleet_and_host("llm", sizes)
    state = with_disks(bare(host), {"/var/lib": (PLENTY, "root"), MODELS: (6 * GIB, "data")})
    files = {"model.safetensors": CardFile(size=6 * GIB), "original/consolidated.pth": CardFile(size=16 * GIB)}
    same, other = (replace_card(SHIPPED.hub[LLAMA], files=files, **changes) for changes in ({}, {"revision": "0" * 40}))
    (refusal,) = findings(host, state, NOW, cards=Cards(hub={LLAMA: same}))
    (warning,) = findings(host, state, NOW, cards=Cards(hub={LLAMA: other}))
    assert (refusal.severity, f"{LLAMA} 6.0" in refusal.reason) == ("refuse", True)
    assert (warning.severity, f"{LLAMA} 6.0 (assumed)" in warning.reason) == ("warn", True)


def test_what_the_lab_simulates_is_not_downloaded() -> None:
    _, host = fleet_and_host("llm", sizes)
    card = replace_card(SHIPPED.hub[QWEN], simulated_weights=16 * GIB)
    state = with_disks(bare(host), {"/var/lib": (0, "root"), MODELS: (0, "data")})
    at_least(host, state, "data", 1, cards=Cards(hub={QWEN: card}))


def test_an_ollama_model_counts_too() -> None:
    _, host = fleet_and_host("embedding", sizes)
    (stack,) = host.stacks
    state = with_disks(bare(host), {"/var/lib": (0, "root"), stack.model_directory: (0, "data")})
    card = SHIPPED.ollama["bge-m3:567m"]
    at_least(host, state, "data", 1 + card.size / GIB, cards=SHIPPED)


def test_paths_of_one_file_system_are_added_up() -> None:
    _, host = fleet_and_host("llm", sizes)
    state = with_disks(bare(host), {"/var/lib": (0, "root"), MODELS: (0, "root")})
    (found,) = at_least(host, state, "root", 2 + 20 + 1 + 6, cards=of(llama=6))
    assert f"the disk of /var/lib, {MODELS} has" in found.reason


def test_what_is_there_needs_only_the_margin() -> None:
    fleet, host = fleet_and_host("llm", sizes)
    state = with_disks(converged(fleet, host), {"/var/lib": (0, "root"), MODELS: (0, "data")})
    at_least(host, state, "root", 2)
    at_least(host, state, "data", 1, cards=of(llama=6, qwen=16))


@pytest.mark.parametrize(
    ("image", "severity"), [("vllm/vllm-openai:v0.19.1", "refuse"), ("registry.lan:5000/my/vllm:v0.19.1", "warn")]
)
def test_a_guess_is_no_refusal(image: str, severity: str) -> None:
    def change(data: Data) -> None:
        data["all"]["versions"]["vllm"] = image

    _, host = fleet_and_host("llm", change)
    state = with_disks(bare(host), {"/var/lib": (10 * GIB, "root"), MODELS: (PLENTY, "data")})
    found = [one for one in findings(host, state, NOW) if one.anchor == "disk"]
    assert [one.severity for one in found] == [severity]
    assert (f"{image} 26.6 (assumed)" in found[0].reason) == (severity == "warn")


def test_a_margin_is_always_wanted_however_little_is_known() -> None:
    def change(data: Data) -> None:
        data["all"]["versions"]["vllm"] = "registry.lan:5000/my/vllm:v0.19.1"

    _, host = fleet_and_host("llm", change)
    state = with_disks(bare(host), {"/var/lib": (2 * GIB - 1, "root"), MODELS: (PLENTY, "data")})
    assert [one.severity for one in findings(host, state, NOW) if one.anchor == "disk"] == ["refuse"]

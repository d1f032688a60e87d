"""Containers, GPUs and memory, from Docker's and nvidia-smi's words."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.facts.identity import named
from stoker.smoke import containers
from stoker.smoke.check import CheckFailed

IMAGE = "vllm/vllm-openai:v0.19.1"
SMI = "0, GPU-aa, 29491, 32768, 00000000:1A:00.0\n1, GPU-bb, 3, 32768, 00000000:3B:00.0\n"
CARDS = named(containers.cards(SMI), {})


def inspection(**changes: Any) -> dict[str, Any]:
    state = {"Status": "running", "StartedAt": "t0", "ExitCode": 0, **changes.pop("State", {})}
    return {
        "Id": "c1",
        "RestartCount": 0,
        "State": state,
        "Config": {"Image": IMAGE, "Env": []},
        "HostConfig": {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-aa"]}]},
        **changes,
    }


def found(before: Any, now: Any) -> str:
    with pytest.raises(CheckFailed) as caught:
        containers.running("c", before, now, IMAGE)
    assert caught.value.remedy
    return caught.value.found


def test_a_running_container() -> None:
    assert containers.running("c", inspection(), inspection(), IMAGE) == f"{IMAGE}, 0 restarts"


def test_earlier_restarts_are_told_but_no_failure() -> None:
    assert containers.running("c", inspection(RestartCount=2), inspection(RestartCount=2), IMAGE).endswith(
        "2 restarts before this smoke"
    )


def test_containers_that_are_not_right() -> None:
    assert found(None, None) == "there is none"
    assert "exited, exit code 137" in found(inspection(), inspection(State={"Status": "exited", "ExitCode": 137}))
    assert "started again at t1" in found(inspection(), inspection(State={"StartedAt": "t1"}, RestartCount=1))
    assert "started again" in found(inspection(), inspection(Id="c2"))
    assert "image other:1" in found(inspection(), inspection(Config={"Image": "other:1"}))
    assert "unhealthy: refused" in found(
        inspection(), inspection(State={"Health": {"Status": "unhealthy", "Log": [{"Output": "refused"}]}})
    )


def test_cards() -> None:
    assert containers.cards(SMI)[1] == containers.Card(1, "GPU-bb", 3, 32768, "0000:3b:00.0")
    for text in (
        "0, GPU-aa, [N/A], 32768, 00000000:1A:00.0",
        "Failed to initialize NVML: Driver/library version mismatch",
    ):
        with pytest.raises(CheckFailed):
            containers.cards(text)


@pytest.mark.parametrize(
    "host_config",
    [
        {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-aa"]}]},
        {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]},
        {"DeviceRequests": [{"Driver": "nvidia", "Count": 0, "DeviceIDs": ["GPU-aa"], "Capabilities": [["gpu"]]}]},
    ],
)
def test_each_way_to_ask_for_a_gpu(host_config: Any) -> None:
    assert containers.gpus([0], CARDS, inspection(HostConfig=host_config), "GPU-aa\n") == "GPU 0"


def test_the_variable_counts_only_without_a_request() -> None:
    environment = {"Image": IMAGE, "Env": ["NVIDIA_VISIBLE_DEVICES=all", "PATH=/bin"]}
    assert containers.requested(inspection(Config=environment)) == {"GPU-aa"}
    assert containers.requested(inspection(Config=environment, HostConfig={"DeviceRequests": None})) == {"all"}


@pytest.mark.parametrize(
    ("described", "visible", "text"),
    [
        ([1], "GPU-bb", "made with GPU 0"),
        ([0], "", "sees no GPU"),
        ([0], "GPU-bb", "sees GPU 1"),
        ([0, 1], "GPU-aa", "made with GPU 0"),
        ([2], "", "nvidia-smi shows GPU-aa, GPU-bb"),
    ],
)
def test_wrong_gpus(described: list[int], visible: str, text: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        containers.gpus(described, CARDS, inspection(), visible)
    assert text in caught.value.found


def test_a_card_may_be_named_in_every_way() -> None:
    for name, shown in ((0, "GPU 0"), ("GPU-aa", "GPU-aa"), ("0000:1a:00.0", "GPU 0000:1a:00.0")):
        assert containers.gpus([name], CARDS, inspection(), "GPU-aa\n") == shown


def test_memory() -> None:
    full = containers.cards(SMI)[0]
    assert containers.memory(full, {"a": 0.45, "b": 0.45}) == "29491 of 32768 MiB used"
    assert containers.memory(containers.Card(0, "u", 1500, 24576), {"ollama": None}) == "1500 of 24576 MiB used"


@pytest.mark.parametrize(
    ("used", "shares"), [(3, {"ollama": None}), (14746, {"a": 0.45, "b": 0.45}), (40000, {"a": 0.9})]
)
def test_memory_that_is_not_right(used: int, shares: dict[str, float | None]) -> None:
    with pytest.raises(CheckFailed) as caught:
        containers.memory(containers.Card(0, "u", used, 32768), shares)
    assert f"{used} of 32768" in caught.value.found

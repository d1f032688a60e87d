"""Which card a name means: by index, UUID and bus address, at the first deploy and after the order has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.fleet import Data, instances
from support.states import NOW, bare, cards, converged, fleet_and_host, steps

from stoker.facts import identity
from stoker.facts.state import HostState
from stoker.plan.preflight import findings
from stoker.render.compose import services
from stoker.spec.fleet import Host
from stoker.steps import layout
from stoker.steps.stack import uuids

_, LLM_HOST = fleet_and_host("llm")
UUIDS = [gpu.uuid for gpu in cards(LLM_HOST)]
BUSES = [gpu.bus_id for gpu in cards(LLM_HOST)]


def named(*names: Sequence[int | str]) -> Any:
    """The llm group with these `gpus` for its instances."""

    def change(data: Data) -> None:
        for instance, gpus in zip(instances(data, "llm"), names, strict=True):
            instance["gpus"] = list(gpus)

    return change


def counted(state: HostState, order: Sequence[int]) -> HostState:
    """The same cards, found in another order: each position names the card that had this index."""
    moved = tuple(replace(state.gpus[old], index=new) for new, old in enumerate(order))
    return replace(state, gpus=moved)


def placed(host: Host, state: HostState) -> dict[str, tuple[str, ...]]:
    return {service.container: service.gpus for service in services(host, host.stacks[0], uuids(state)) if service.gpus}


EVERY_WAY = {
    "indices": named([0], [0], [1], [1], [2]),
    "UUIDs": named([UUIDS[0]], [UUIDS[0]], [UUIDS[1]], [UUIDS[1].upper()], [UUIDS[2]]),
    "buses": named(["1a:00.0"], ["00000000:1A:00.0"], ["0000:1b:00.0"], ["1b:0"], ["1c:00.0"]),
    "mixed": named([0], [0], [UUIDS[1]], [UUIDS[1]], ["1c:00.0"]),
}


@pytest.mark.parametrize("change", EVERY_WAY.values(), ids=EVERY_WAY)
def test_every_way_to_name_a_card_gives_the_same_containers(change: Any) -> None:
    _, host = fleet_and_host("llm", change)
    assert placed(host, bare(host)) == placed(LLM_HOST, bare(LLM_HOST))
    assert findings(host, bare(host), NOW) == []


def test_an_index_keeps_its_card_when_the_order_changes() -> None:
    fleet, host = fleet_and_host("llm")
    before = converged(fleet, host)
    after = counted(before, (2, 0, 1))
    assert placed(host, after) == placed(host, before)
    assert steps(fleet, host, after) == {}
    (note,) = findings(host, after, NOW)
    assert (note.severity, note.anchor) == ("note", "gpu-order")
    assert (
        "GPU 0 of the description is now 1, GPU 1 of the description is now 2, GPU 2 of the description is now 0"
        in note.reason
    )


def test_without_the_record_an_index_is_that_of_the_day_and_is_noted() -> None:
    fleet, host = fleet_and_host("llm")
    before = converged(fleet, host)
    contents = {path: text for path, text in before.contents.items() if path != identity.RECORD}
    files = {path: file for path, file in before.files.items() if path != identity.RECORD}
    after = counted(replace(before, contents=contents, files=files), (2, 0, 1))
    assert placed(host, after)["vllm_qwen_gpu2"] == (UUIDS[1],)
    (action,) = steps(fleet, host, after)["layout"]
    assert action.description == "note in /var/lib/stoker/gpus which card each index means"


def test_only_what_is_named_by_index_is_noted() -> None:
    _, host = fleet_and_host("llm", EVERY_WAY["mixed"])
    record = layout.record(host, bare(host))
    assert record is not None
    assert record.text == f"0 {UUIDS[0]}\n"
    _, host = fleet_and_host("llm", EVERY_WAY["UUIDs"])
    assert layout.record(host, bare(host)) is None


def test_a_replaced_card_is_refused_and_all_cards_are_listed() -> None:
    fleet, host = fleet_and_host("llm")
    before = converged(fleet, host)
    new = replace(before.gpus[1], uuid="GPU-ffffffff-0000-0000-0000-000000000000")
    (refusal,) = findings(host, replace(before, gpus=(before.gpus[0], new, before.gpus[2])), NOW)
    assert refusal.severity == "refuse"
    assert refusal.reason.startswith(
        f"GPU 1, wanted by vllm_llama_gpu1_0, vllm_llama_gpu1_1, has been {UUIDS[1]}, which is gone; there are 0 = {UUIDS[0]}"
    )
    for gpu in (before.gpus[0], new, before.gpus[2]):
        assert f"{gpu.uuid} = {gpu.bus_id} (Tesla V100-SXM2-32GB, 32 GiB)" in refusal.reason
    assert "remove /var/lib/stoker/gpus on the host" in refusal.remedy


@pytest.mark.parametrize("name", ["GPU-eeeeeeee-0000-0000-0000-000000000000", "af:00.0"])
def test_a_card_that_is_not_there_is_refused(name: str) -> None:
    _, host = fleet_and_host("llm", named([0], [0], [1], [1], [name]))
    (refusal,) = findings(host, bare(host), NOW)
    shown = name if name.startswith("GPU-") else "GPU 0000:af:00.0"
    assert refusal.reason.startswith(
        f"{shown}, wanted by vllm_qwen_gpu2, is not there; there are 0 = {UUIDS[0]} = {BUSES[0]}"
    )
    assert refusal.anchor == "gpu-missing"


def test_one_card_by_two_names_is_refused() -> None:
    _, host = fleet_and_host("llm", named([0], [UUIDS[0]], [1], [1], [2]))
    (refusal,) = findings(host, bare(host), NOW)
    assert refusal.reason.startswith(f"GPU 0 and {UUIDS[0]} are the same card")


def test_a_card_more_does_not_take_an_index_that_is_taken() -> None:
    """A fourth card in front shifts all the others: index 3 would be the card that 2 has been."""
    _, host = fleet_and_host("llm")
    record = {0: UUIDS[0], 1: UUIDS[1], 2: UUIDS[2]}
    new = replace(cards(host)[0], uuid="GPU-ffffffff-0000-0000-0000-000000000000", bus_id="0000:0a:00.0")
    there = [new, *(replace(gpu, index=gpu.index + 1) for gpu in cards(host))]
    found = identity.named(there, record)
    assert [found[index].uuid for index in (0, 1, 2)] == UUIDS
    assert found["0000:0a:00.0"] is new

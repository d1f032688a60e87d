"""The compatibility table asked for each instance on the cards that were found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fleet import Data, instances
from support.states import NOW, bare, fleet_and_host

from stoker.models.card import load_cards
from stoker.plan.finding import Finding
from stoker.plan.preflight import findings

KNOWN = load_cards([Path(__file__).resolve().parents[2] / "group_data"])


def said(change: Any = lambda data: None, group: str = "llm", **state: Any) -> list[Finding]:
    _, host = fleet_and_host(group, change)
    found = findings(host, replace(bare(host), **state), NOW, cards=KNOWN)
    return [one for one in found if one.check == "compatibility"]


def image(name: str) -> Any:
    def change(data: Data) -> None:
        data["all"]["versions"] = {**data["all"]["versions"], "vllm": name}

    return change


def test_a_release_without_code_for_the_card_is_refused_once_for_all_instances() -> None:
    refusals = [one for one in said(image("vllm/vllm-openai:v0.20.0")) if one.severity == "refuse"]
    (about,) = [one for one in refusals if "0.19.1" in one.remedy + one.reason]
    assert about.instance.count("vllm_") == 5


def test_an_unknown_tag_is_a_warning_that_names_what_was_assumed() -> None:
    found = said(image("vllm/vllm-openai:our-own-build"))
    assert [one.severity for one in found] == ["warn"]
    assert "0.19.1 is assumed" in found[0].reason


def test_gptq_of_the_models_own_bits_on_an_old_release() -> None:
    """INT4 is refused, INT8 warned of: the bits stand in the models' cards."""
    verdicts = {
        name: one.severity
        for one in said(image("vllm/vllm-openai:v0.13.0"))
        for name in one.instance.split(", ")
        if "0.14" in one.reason + one.remedy
    }
    assert verdicts["vllm_llama_gpu0_0"] == "refuse"
    assert verdicts["vllm_qwen_gpu2"] == "warn"


@pytest.mark.parametrize("module", ["open", "proprietary", ""])
def test_open_kernel_modules_are_refused_below_turing(module: Any) -> None:
    found = [one.severity for one in said(kernel_module=module)]
    assert found == (["refuse"] if module == "open" else [])


def test_a_driver_that_its_own_check_refuses_is_told_of_once() -> None:
    _, host = fleet_and_host("llm")
    found = findings(host, replace(bare(host), driver="515.65.01"), NOW, cards=KNOWN)
    assert [one.check for one in found if one.severity == "refuse"] == ["driver"]


def test_an_instance_with_another_image_is_judged_by_it() -> None:
    def change(data: Data) -> None:
        instances(data, "llm")[4]["image"] = "vllm/vllm-openai:v0.20.2"

    assert {one.instance for one in said(change) if one.severity == "refuse"} == {"vllm_qwen_gpu2"}

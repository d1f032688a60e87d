"""The command line of every vLLM instance of every fleet, judged by vLLM's own parsers: the pinned one and the installed one."""

from __future__ import annotations

import json

import pytest
from parser_answers import PINNED, Answer, Verdict, same
from rendered_lines import SOURCES, WRONG, Rendered, Source, rendered

PARSERS = ["pinned_answer", "installed_answer"]


@pytest.fixture(params=PARSERS)
def answer(request: pytest.FixtureRequest) -> Answer:
    found: Answer = request.getfixturevalue(request.param)
    return found


def test_the_parsers_are_two(pinned_answer: Answer, installed_answer: Answer) -> None:
    assert pinned_answer.version == PINNED
    assert installed_answer.version != PINNED


def test_the_default_fleet_is_among_them() -> None:
    counts = {source: len(rendered(source)) for source in SOURCES if source[0] == "inventory.py"}
    assert set(counts.values()) == {5}
    assert {("inventory.py", ()), ("inventory.py", ("lab/group_data",))} <= set(counts)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: "+".join([source[0], *source[1]]))
def test_every_line_of_a_fleet_means_what_is_described(answer: Answer, source: Source) -> None:
    asked = [instance for instance in rendered(source) if answer.version != PINNED or instance.version == PINNED]
    found = {instance.name: problem_of(instance, answer.verdicts[instance.name]) for instance in asked}
    assert {name: problem for name, problem in found.items() if problem} == {}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_refused(answer: Answer, name: str) -> None:
    verdict = answer.verdicts[name]
    assert not verdict.accepted
    assert WRONG[name][1] in str(verdict.error)


def test_warnings_are_seen(answer: Answer) -> None:
    """`--model` is deprecated; without this a parser whose warnings got lost would pass everything."""
    (warning,) = answer.verdicts["two models"].warnings
    assert "provide the model as a positional argument" in warning


def test_a_wrong_value_is_seen() -> None:
    """The negative control of the comparison."""
    good = Rendered("x", [], "/model_data/m", "m", {"dtype": "half", "max-model-len": 8192}, PINNED)
    values = {"model_tag": "/model_data/m", "served_model_name": ["m"], "dtype": "half", "max_model_len": 8192}
    assert problem_of(good, Verdict(True, None, (), values, frozenset(values))) == ""
    wrong = values | {"max_model_len": 8000, "seed": 1}
    found = problem_of(good, Verdict(True, None, (), wrong, frozenset(wrong)))
    assert "max-model-len is 8000, described is 8192" in found
    assert "seed is 1, which nobody described" in found
    assert problem_of(good, Verdict(True, None, ("old",), values, frozenset(values))) == "warnings: old"


def problem_of(instance: Rendered, verdict: Verdict) -> str:
    """What is wrong with an instance's line, or nothing."""
    if not verdict.accepted:
        return f"refused: {verdict.error}"
    if verdict.warnings:
        return f"warnings: {'; '.join(verdict.warnings)}"
    described = {"model-tag": instance.model, "served-model-name": instance.served, **instance.arguments}
    problems = [
        f"{name} is {value_of(verdict, name)!r}, described is {value!r}"
        for name, value in described.items()
        if not same(value, value_of(verdict, name)) and not same_json(value, value_of(verdict, name))
    ]
    known = {destination(name) for name in described}
    problems += [f"{name} is {verdict.values[name]!r}, which nobody described" for name in verdict.given - known]
    return "; ".join(problems)


def destination(name: str) -> str:
    """max-model-len -> max_model_len; no-enforce-eager and compilation-config.mode belong to another one."""
    return name.partition(".")[0].removeprefix("no-").replace("-", "_")


def value_of(verdict: Verdict, name: str) -> object:
    value: object = verdict.values.get(destination(name))
    for key in name.split(".")[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return not value if name.startswith("no-") and isinstance(value, bool) else value


def same_json(described: object, parsed: object) -> bool:
    """JSON text against what it became."""
    try:
        return isinstance(described, str) and isinstance(parsed, dict | list) and same(json.loads(described), parsed)
    except ValueError:
        return False

"""Whatever stands in a description: it is accepted, or refused in the words of a person. Never a traceback.

Each value of the default description is replaced by each of a few odd ones, and each name is misspelt or left out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from support.fleet import Data, default_data, make_fleet
from support.states import bare

from stoker.facts.probe import script
from stoker.render.compose import compose_file
from stoker.spec.fleet import Fleet
from stoker.spec.problems import Problem, SpecError
from stoker.steps.questions import questions
from stoker.steps.stack import gateway_files, uuids

ODD: list[object] = [
    None,
    True,
    0,
    -1,
    1.5,
    float("nan"),
    10**30,
    "",
    "x y",
    "ü\n'\"$`{{",
    "a" * 300,
    [],
    [None],
    [[]],
    {},
    {"a": 1},
    {1: 2},
    b"x",
    len,
    ("a", 1),
]

Place = tuple[str | int, ...]


def places(value: object, here: Place = ()) -> Iterator[Place]:
    """Every place in nested dictionaries and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield (*here, name)
        yield from places(item, (*here, name))


PLACES = sorted({place for place in places(default_data()) if len(place) > 1}, key=str)


def change(data: Data, place: Place, value: object, leave_out: bool = False) -> None:
    container: Any = data
    for part in place[:-1]:
        container = container[part]
    if leave_out:
        del container[place[-1]]
    else:
        container[place[-1]] = value


def judge(edit: Any) -> None:
    """The description is refused with words, or all that is rendered from it can be rendered."""
    found = fleet_or_problems(edit)
    if isinstance(found, Fleet):
        render(found)
        return
    assert found
    for problem in found:
        assert problem.where.startswith("group_data/")
        assert problem.field
        assert problem.reason
        assert problem.remedy
        assert "pydantic" not in str(problem)
        assert "\n" not in problem.reason + problem.remedy
        assert len(str(problem)) < 2000


def fleet_or_problems(edit: Any) -> Fleet | list[Problem]:
    try:
        return make_fleet(edit)
    except SpecError as error:
        return error.problems


def render(fleet: Fleet) -> None:
    for host in fleet.hosts:
        assert script(questions(fleet, host))
        cards = {index: f"GPU-{index}" for index in range(host.gpus.count)}
        for stack in host.stacks:
            assert compose_file(host, stack, cards)
            assert stack.gateway is None or gateway_files(fleet, host, stack)


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
def test_an_odd_value_in_any_place(value: object) -> None:
    for place in PLACES:
        judge(lambda data, place=place: change(data, place, copy.copy(value)))


def test_anything_left_out() -> None:
    for place in PLACES:
        judge(lambda data, place=place: change(data, place, None, leave_out=True))


def test_any_name_misspelt() -> None:
    for place in PLACES:
        if isinstance(place[-1], str):

            def misspell(data: Data, place: Place = place) -> None:
                container: Any = data
                for part in place[:-1]:
                    container = container[part]
                container[f"{place[-1]}x"] = container.pop(place[-1])

            judge(misspell)


def test_the_default_description_can_be_rendered() -> None:
    fleet = make_fleet()
    render(fleet)
    for host in fleet.hosts:
        assert compose_file(host, host.stacks[0], uuids(bare(host)))

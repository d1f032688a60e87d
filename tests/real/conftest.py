"""The real engines' Python, the released vLLM's Python files, and what both parsers say to all command lines, asked once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from parser_answers import PINNED, Answer, ask, ask_in_parts
from release_examples import examples_by_name, wrong_examples_by_name
from rendered_lines import WRONG, lines_of_all_fleets

from lab.internet.shell import BuildError
from lab.machines.paths import cache
from lab.real import root
from lab.real.released import fetch

HERE = Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("real")


@pytest.fixture(scope="session")
def engine() -> None:
    """Real vLLM is there. A test that cannot run has failed: nothing is skipped."""
    if root.missing():
        pytest.fail(root.missing(), pytrace=False)


@pytest.fixture(scope="session")
def released(engine: None) -> Path:
    """The folder of the pinned vLLM's Python files."""
    folder = cache() / "real"
    why = _refusal(lambda: fetch(PINNED, folder))
    if why:
        pytest.fail(why, pytrace=False)
    return fetch(PINNED, folder)


def _refusal(action: Callable[[], object]) -> str:
    """What a person is told when it fails; no traceback of ours beside it."""
    try:
        action()
    except BuildError as error:
        return str(error).partition("\n")[0]
    return ""


@pytest.fixture(scope="session")
def pinned_answer(released: Path) -> Answer:
    """What the parser of the pinned vLLM says. Its start costs 10 s or more, so everything is asked at once."""
    examples = [*examples_by_name().values(), *wrong_examples_by_name().values()]
    lines = {example.name: example.line for group in examples for example in group}
    return ask_in_parts(released, lines_of_all_fleets() | {name: line for name, (line, _) in WRONG.items()} | lines)


@pytest.fixture(scope="session")
def installed_answer(engine: None) -> Answer:
    """What the parser of the vLLM says that the lab really runs."""
    return ask(None, lines_of_all_fleets() | {name: line for name, (line, _) in WRONG.items()})

"""The real engines' Python, the released vLLM's Python files, and what both parsers say to all command lines, asked once."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from parser_answers import PINNED, Answer, ask
from release_examples import examples_by_name, wrong_examples_by_name
from rendered_lines import WRONG, lines_of_all_fleets

from lab.internet.shell import BuildError, run
from lab.machines.paths import cache
from lab.real.released import fetch

PYTHON_VARIABLE = "STOKER_REAL_PYTHON"
MISSING = f"there is no real vLLM here: set {PYTHON_VARIABLE} to the command of its Python; these tests do not pass without it"


@pytest.fixture(scope="session")
def engine_python() -> list[str]:
    """The words of the command that is the Python of an environment with vLLM for CPU."""
    words = shlex.split(os.environ.get(PYTHON_VARIABLE, ""))
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None and 'it has no vllm')"
    why = _refusal(lambda: run([*words, "-c", look])) if words else "it is not set"
    if why:
        pytest.fail(f"{MISSING} ({why})", pytrace=False)
    return words


@pytest.fixture(scope="session")
def released() -> Path:
    """The folder of the pinned vLLM's Python files, as `engine_python` sees it."""
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
def pinned_answer(engine_python: list[str], released: Path) -> Answer:
    """What the parser of the pinned vLLM says. Its start costs 10 s or more, so everything is asked at once."""
    examples = [*examples_by_name().values(), *wrong_examples_by_name().values()]
    lines = {example.name: example.line for group in examples for example in group}
    return ask(
        engine_python, released, lines_of_all_fleets() | {name: line for name, (line, _) in WRONG.items()} | lines
    )


@pytest.fixture(scope="session")
def installed_answer(engine_python: list[str]) -> Answer:
    """What the parser of the vLLM says that the lab really runs."""
    return ask(engine_python, "", lines_of_all_fleets() | {name: line for name, (line, _) in WRONG.items()})

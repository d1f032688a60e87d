"""`stoker key`: a key is printed once, and the line lets exactly that key in."""

from __future__ import annotations

import ast
import hashlib
import re

import pytest
from typer.testing import CliRunner

from stoker.keys.command import app
from stoker.spec.gateway_access import Key


def printed(*words: str, given: str = "") -> str:
    done = CliRunner().invoke(app, list(words), input=given)
    assert done.exit_code == 0, done.output
    return done.stdout


def entry(text: str) -> Key:
    """The line as group_data would hold it."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith("{")]
    return Key.model_validate(ast.literal_eval(line.strip().rstrip(",")))


def test_the_line_is_of_the_key() -> None:
    text = printed("new", "team-a")
    (key,) = re.findall(r"sk-stoker-\S+", text)
    assert entry(text).name == "team-a"
    assert entry(text).sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert len(key) > 50


def test_no_two_keys_are_the_same() -> None:
    assert len({entry(printed("new", "team-a")).sha256 for _ in range(20)}) == 20


def test_a_key_that_exists() -> None:
    key = "an-old-key-of-the-site-0123456789"
    text = printed("hash", "old", given=f"{key}\n")
    assert entry(text).sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert key not in text


@pytest.mark.parametrize(
    ("words", "given", "expected"),
    [
        (["new", "Team A"], "", "is no name of a key"),
        (["new", "-x-"], "", ""),
        (["new", "include"], "", "a word of nginx's own"),
        (["hash", "team-a"], "", "at least 24 signs"),
        (["hash", "team-a"], "short\n", "at least 24 signs"),
        (["hash", "team-a"], "a long key with spaces in it 0123456789\n", "at least 24 signs"),
    ],
)
def test_refusals(words: list[str], given: str, expected: str) -> None:
    done = CliRunner().invoke(app, words, input=given)
    assert done.exit_code in (2, 3)
    assert expected in done.stderr
    assert "sha256" not in done.stdout

"""Values that a description takes from the environment or from a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoker import given

PROJECT = Path(__file__).resolve().parents[2]


def test_defaults_where_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("A_TEXT", "A_NUMBER", "A_SHARE", "A_CHOICE"):
        monkeypatch.delenv(variable, raising=False)
    assert given.text("A_TEXT", "x") == "x"
    assert given.number("A_NUMBER", 2048) == 2048
    assert given.share("A_SHARE", 0.9) == 0.9
    assert given.choice("A_CHOICE", "b", ("a", "b")) == "b"


def test_what_is_set_counts_and_an_empty_value_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_NUMBER", "4096")
    monkeypatch.setenv("A_SHARE", "0.5")
    monkeypatch.setenv("A_TEXT", "")
    assert given.number("A_NUMBER", 2048) == 4096
    assert given.share("A_SHARE", 0.9) == 0.5
    assert given.text("A_TEXT", "x") == "x"


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda: given.number("A_VALUE", 2048), "4k"),
        (lambda: given.number("A_VALUE", 2048), "0"),
        (lambda: given.number("A_VALUE", 2048), "-1"),
        (lambda: given.number("A_VALUE", 2048), "\N{SUPERSCRIPT TWO}"),
        (lambda: given.share("A_VALUE", 0.9), "90"),
        (lambda: given.share("A_VALUE", 0.9), "nan"),
        (lambda: given.share("A_VALUE", 0.9), "much"),
        (lambda: given.choice("A_VALUE", "vllm", ("vllm", "ollama")), "opnai"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(read, value: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("A_VALUE", value)
    given.problems()
    assert read() in (2048, 0.9, "vllm"), "the default, for the rest of the reading"
    (told,) = given.problems()
    assert "environment: A_VALUE = " in str(told)
    assert "unset A_VALUE" in str(told)
    assert given.problems() == []


def test_arguments_of_a_file_have_the_names_of_a_description(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text("max_num_seqs: 32\nenforce-eager: true\n# nothing\n")
    assert given.arguments(file) == {"max-num-seqs": 32, "enforce-eager": True}
    file.write_text("")
    assert given.arguments(file) == {}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("vllm_config.json", "{}", "rename it to vllm_config.yaml: what is JSON is YAML too"),
        ("vllm.yaml", "[1, 2]", "one argument a line"),
        ("vllm.yaml", "a: [", "correct it there"),
        ("vllm.yaml", None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used(name: str, content: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    given.problems()
    assert given.arguments(file) == {}
    (told,) = given.problems()
    assert words in str(told)


def test_json_renamed_is_read(tmp_path: Path) -> None:
    file = tmp_path / "vllm_config.yaml"
    file.write_text('{"max_model_len": 4096, "gpu_memory_utilization": 0.8}')
    assert given.arguments(file) == {"max-model-len": 4096, "gpu-memory-utilization": 0.8}


def test_a_person_hears_of_all_of_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "group_data").mkdir()
    (tmp_path / "inventory.py").write_text('one = ["192.168.31.40"]\n')
    (tmp_path / "group_data/one.py").write_text(
        "from stoker.given import number as _number, share as _share\n_a = _number('A_NUMBER', 1)\n_b = _share('A_SHARE', 0.5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stoker", "check-description", "-i", str(tmp_path / "inventory.py")],
        env={**os.environ, "A_NUMBER": "x", "A_SHARE": "2"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done
    assert "2 problems in the description" in done.stderr
    assert "environment: A_NUMBER = 'x'" in done.stderr
    assert "environment: A_SHARE = '2'" in done.stderr

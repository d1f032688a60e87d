"""The checkout's own group_data, from which `stoker init` and `stoker import` take pins and models."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.description import PROJECT

from stoker.draft.shipped import GROUP_DATA, shipped
from stoker.importer import command as importer
from stoker.propose import command as proposer
from stoker.propose.command import Wishes
from stoker.spec.problems import SpecError

ALL_PY = (GROUP_DATA / "all.py").read_text(encoding="utf-8")
COMPOSE = PROJECT / "tests/data/handmade/memoryx-hybrid.yaml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ALL_PY.replace("versions = {", 'versions = {"vlm": "x",', 1), ("versions.vlm", "there is no field", "'vllm'")),
        (ALL_PY.replace("versions = {", "versions = {**MINE,", 1), ("versions", "line ", "is computed")),
        (ALL_PY.replace("versions = {", "versions = {[]: 1,", 1), ("versions", "line ", "is computed")),
        (ALL_PY.replace("versions = {", "versions = {{", 1), ("line ", "not Python")),
        (ALL_PY.replace("models = {", "other = {", 1), ("models", "is not given")),
        (None, ("all.py", "cannot be read")),
    ],
)
def test_an_all_py_that_cannot_be_used_ends_in_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    words: tuple[str, ...],
) -> None:
    """File, field and reason, and both commands end with status 3."""
    if text is not None:
        (tmp_path / "all.py").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        shipped(tmp_path)
    for word in (str(tmp_path / "all.py"), *words):
        assert word in str(refused.value)
    for command in (proposer, importer):
        monkeypatch.setattr(command, "shipped", lambda: shipped(tmp_path))
    assert proposer.init(Wishes((), ("V100-32GB",), {}, tmp_path / "fleet", True)) == 3
    assert importer.import_([COMPOSE], [], [], tmp_path / "fleet", lambda words: True) == 3
    assert capsys.readouterr().err == 2 * f"{refused.value}\n"


def test_shipped_values_may_stand_beside_computed_ones(tmp_path: Path) -> None:
    """Only what is read has to be written out."""
    (tmp_path / "all.py").write_text(ALL_PY + "\nelsewhere = {**{}}\n", encoding="utf-8")
    assert shipped(tmp_path).versions == shipped().versions

"""Keys of repositories that are about to end; and the chapters that drift asks, which are those of a deploy."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from support.states import FINGERPRINT, KEY, NOW, bare, converged, fleet_and_host

from stoker.doctor import keys
from stoker.doctor.live import Live
from stoker.doctor.look import Commands, LiveLook
from stoker.steps import openpgp, sources
from stoker.steps.chapters import chapters

PROJECT = Path(__file__).resolve().parents[2]
_DAY = 86400


def look(text: str = KEY) -> LiveLook:
    fleet, host = fleet_and_host()
    state = converged(fleet, host)
    state = replace(state, contents={**state.contents, **dict.fromkeys(sources.contents(), text)})
    return LiveLook(fleet, host, state, Live(), NOW, Commands(host.name, ("ssh", host.name)))


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (-3, "ended 3 days ago"),
        (0, "ended 0 days ago"),
        (5, "ends in 5 days"),
        (29.9, "ends in 29 days"),
        (30.1, ""),
        (4000, ""),
    ],
)
def test_a_key_that_is_about_to_end(days: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openpgp, "ends", lambda text: {FINGERPRINT: int(NOW + days * _DAY)})
    found = keys.end(look())
    if not said:
        (only,) = found
        assert only.verdict == "ok"
        assert "the first ends on 20" in only.detail
        return
    assert [line.detail.split(";")[0] for line in found] == [
        f"the key of {name} {said}" for name in ("docker", "nvidia-container-toolkit")
    ]
    assert found[0].fix == (
        "ssh 192.168.31.10 'rm -f /etc/apt/keyrings/docker.asc' && stoker deploy --limit 192.168.31.10"
    )


def test_a_key_without_an_end() -> None:
    (only,) = keys.end(look())
    assert (only.verdict, only.detail) == ("ok", "2 keys, none ends")


def test_what_is_no_key_is_drift() -> None:
    assert keys.end(look("")) == []
    assert keys.end(look("<html>")) == []


def test_the_chapters_are_those_of_a_deploy() -> None:
    story = ast.parse((PROJECT / "deploy.py").read_text(encoding="utf-8"))
    told = [
        (call.func.value.id, call.func.attr)
        for call in ast.walk(story)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)
    ]
    names = [name for module, function in told if (name := _operation(module, function))]
    fleet, host = fleet_and_host()
    assert list(chapters(fleet, host, converged(fleet, host))) == names


def _operation(module: str, function: str) -> str:
    """The name that a chapter gives to its `converge`; empty for the verdict and the wait."""
    tree = ast.parse((PROJECT / "tasks" / f"{module}.py").read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    for call in ast.walk(body):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "converge":
            return next(str(ast.literal_eval(word.value)) for word in call.keywords if word.arg == "name")
    return ""


def test_a_bare_host_lacks_every_chapter_that_can_be_asked() -> None:
    fleet, host = fleet_and_host()
    missing = {name for name, actions in chapters(fleet, host, bare(host)).items() if actions}
    assert {"Package sources", "Base packages", "Docker", "Images", "Stack files", "Containers"} <= missing
    assert not any(chapters(fleet, host, converged(fleet, host)).values())

"""`stoker status --watch`: what is asked again, what stays, and how the view is renewed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from rich.console import Console
from rich.text import Text
from support.states import NOW, converged, fleet_and_host, probe_output

from stoker.description import Description
from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.operate import screen
from stoker.smoke.ssh import Shell
from stoker.status import command
from stoker.status.command import _Look

FLEET, HOST = fleet_and_host()
NAME = "vllm_qwen_gpu2"
SERVING = converged(FLEET, HOST)


class Scripted:
    """A host whose answers are written down."""

    def __init__(self, *states: HostState) -> None:
        self._states = iter(states)
        self.whole: list[bool] = []

    def run(self, script: str, sudo: bool) -> str:
        assert sudo
        self.whole.append("@@stoker packages" in script)
        output = probe_output(next(self._states))
        if self.whole[-1]:
            return output
        sections = output.split("@@stoker ")
        glanced = ("identity", "content", "gpus", "gpu-", "docker", "containers", "answers")
        return "".join(f"@@stoker {one}" for one in sections if one.startswith(glanced))


def looked(*states: HostState) -> tuple[list[Any], list[bool]]:
    look, shell = _Look(Description(None, FLEET, Cards(), [HOST]), HOST), Scripted(*states)
    return [look.ask(cast(Shell, shell)) for _ in states], shell.whole


@pytest.fixture(autouse=True)
def _same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the hosts above."""
    monkeypatch.setattr(command.time, "time", lambda: float(NOW))


def test_what_changes_by_itself_is_seen_and_the_rest_is_asked_now_and_then() -> None:
    stopped = replace(SERVING.containers[NAME], status="exited")
    later = replace(SERVING, containers={**SERVING.containers, NAME: stopped})
    (first, second), whole = looked(SERVING, later)
    assert whole == [True, False]
    assert first.ready
    assert {one.name: one.health for one in second.instances}[NAME] == "down"
    assert (second.system, second.drift) == (first.system, ())


def test_drift_is_found_by_the_next_whole_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "WHOLE_SECONDS", 0.0)
    other = replace(SERVING.containers[NAME], configuration="another")
    (_, second), whole = looked(SERVING, replace(SERVING, containers={**SERVING.containers, NAME: other}))
    assert whole == [True, True]
    assert second.drift == (f"Containers: {NAME}: recreate, its description changed",)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Two looks, then Ctrl-C."""
    monkeypatch.setattr(screen, "as_keyboard_interrupt", lambda: None)
    monkeypatch.setattr(screen, "_pause", lambda begun, seconds: None)
    return iter([1, 2])


def watched(looks: Iterator[int], terminal: bool, height: int = 1) -> str:
    def look() -> int:
        try:
            return next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    console = Console(file=io.StringIO(), force_terminal=terminal, width=20, no_color=True)
    rows = [Text(f"row {number} " + "x" * 40) for number in range(height)]
    status = screen.again_and_again(look, lambda seen, width: [Text(f"look {seen}"), *rows], 2.0, console)
    assert status == 130
    return cast(io.StringIO, console.file).getvalue()


def test_in_a_pipe_the_views_follow_each_other_whole_and_without_control_characters(looks: Iterator[int]) -> None:
    row = "row 0 " + "x" * 40
    assert watched(looks, terminal=False) == f"look 1\n{row}\n\nlook 2\n{row}\n\n"


def test_on_a_terminal_the_last_view_stays_and_no_line_is_broken(looks: Iterator[int]) -> None:
    text = watched(looks, terminal=True)
    assert text.endswith("look 2\nrow 0 " + "x" * 13 + "…\n")
    assert "\x1b[?1049h" in text, "the views before stand on a screen of their own"
    assert "\x1b[?1049l" in text

"""The view: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import re
import threading
from dataclasses import replace

import pytest
from ready_fakes import Scene, ScriptedHost, inspect_json
from rich.console import Console

from stoker.operations.pulling import Pulling, explained
from stoker.ready import Board, Target, wait_ready
from stoker.ready.board import bar, clock_text, left_text, memory_text, phase_text
from stoker.ready.outcome import Verdict
from stoker.ready.phase import Phase, Progress
from stoker.ready.wait import View

A = Target("gpu10", "vllm_a", "vllm", "vllm_a", 11401, "llama", gpus=("GPU 0",))
B = Target("gpu65", "ollama_b", "ollama", "ollama_b", 11434, "bge-m3", gpus=("GPU-0a1b2c3d-aaaa",))


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def console(terminal: bool, width: int = 120, height: int = 25) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=height, color_system=None)


def text_of(one: Console) -> str:
    assert isinstance(one.file, io.StringIO)
    return one.file.getvalue()


def test_lines_one_a_change_and_a_heartbeat_without_control_characters() -> None:
    out, now = console(False, 60), Time()
    board = Board(out, now)
    board.join([A])
    for now.now in range(40):
        files = "1 of 2 files" if now.now > 5 else "0 of 2 files"
        board.show([View(A, Progress(Phase.LOADING, files, 50.0), float(now.now))])
    lines = text_of(out).splitlines()
    assert lines[0] == "gpu10 vllm_a: loading weights: 0 of 2 files (50 %), 0.0 s"
    assert [line for line in lines[1:] if "still waiting for 1 of 1: vllm_a loading weights" in line] == lines[1:]
    assert len(lines) == 3
    board.show([View(A, Progress(Phase.FAILED), 41.0, "no memory", Verdict.FAILED)])
    assert text_of(out).splitlines()[-1] == "gpu10 vllm_a: failed: no memory, 41.0 s"
    assert "\x1b" not in text_of(out)
    assert "\r" not in text_of(out)


def test_a_phase_that_passed_between_two_looks_has_its_line() -> None:
    out = console(False)
    board = Board(out, Time())
    board.join([A])
    for _ in range(2):  # the look after it has nothing new
        board.show([View(A, Progress(Phase.PROFILING), 9.0, passed=(Phase.LOADING, Phase.COMPILING))])
    assert text_of(out).splitlines() == [
        "gpu10 vllm_a: loading weights, passed",
        "gpu10 vllm_a: compiling, passed",
        "gpu10 vllm_a: measuring memory, 9.0 s",
    ]


LOADING = View(
    A,
    Progress(Phase.LOADING, "1 of 2 files", 50.0),
    12.0,
    remaining=83.0,
    memory=(5427, 32768),
    line="Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:05<00:05,  5.60s/it] and more than has room",
)
DONE = View(B, Progress(Phase.READY), 3.0, "1.2 GiB in GPU memory", Verdict.READY)


def shown_on(width: int, *views: View, height: int = 25, passed: float = 0.0) -> list[str]:
    """The table's lines, without the space at their ends."""
    out, now = console(True, width, height), Time()
    board = Board(out, now)
    board.show(views)
    now.now = passed
    told = len(text_of(out))
    out.print(board.table())
    return [line.rstrip() for line in text_of(out)[told:].splitlines()]


def test_a_wide_terminal_shows_everything() -> None:
    shown = shown_on(130, LOADING, DONE)
    row = next(line for line in shown if "vllm_a" in line)
    for words in ("gpu10", "loading weights: 1 of 2 files (50 %)", "█████░░░░░", "12.0 s", "~1:23", "5.3 of 32 GiB"):
        assert words in row
    assert any(line.strip().startswith("Loading safetensors checkpoint shards") for line in shown)
    assert "ready: 1.2 GiB in GPU memory" in "\n".join(shown)


def test_narrow_terminals_lose_columns_and_never_their_lines_ends() -> None:
    for width in (80, 60, 40):
        shown = shown_on(width, LOADING, DONE)
        assert max(map(len, shown)) <= width
        text = "\n".join(shown)
        for words in ("gpu10", "gpu65", "vllm_a", "12.0 s", "ready"):
            assert words in text
        assert ("~1:23" in text) is (width == 80)
        assert ("checkpoint shards" in text) is (width == 80)
        assert "█" not in text


def test_many_instances_leave_no_room_for_the_logs() -> None:
    views = [replace(LOADING, target=replace(A, name=f"vllm_{n}")) for n in range(20)]
    assert any("checkpoint shards" in line for line in shown_on(130, *views, height=50))
    assert not any("checkpoint shards" in line for line in shown_on(130, *views, height=24))


def test_times_go_on_between_two_looks() -> None:
    text = "\n".join(shown_on(130, LOADING, DONE, passed=20.0))
    for words in ("32.0 s", "~1:03", "3.0 s"):
        assert words in text


@pytest.mark.parametrize(
    ("terminal", "environment", "control"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "xterm-256color", "NO_COLOR": "1"}, True),
    ],
)
def test_control_characters_only_where_they_are_understood(
    terminal: bool, environment: dict[str, str], control: bool
) -> None:
    out = Console(file=io.StringIO(), force_terminal=terminal, width=80, _environ=environment)
    board = Board(out, Time())
    board.join([A])
    board.show([LOADING])
    board.leave([])
    assert ("\x1b[?25l" in text_of(out)) is control  # the cursor is hidden while the view lives
    assert ("\x1b[?25h" in text_of(out)) is control
    colours = re.findall(r"\x1b\[(?:3|4|9)\d[\d;]*m", text_of(out))
    assert not colours or "NO_COLOR" not in environment


def test_a_view_that_is_broken_off_leaves_its_last_picture() -> None:
    out = console(True)
    board = Board(out, Time())
    board.join([A])
    board.show([LOADING])
    board.close()
    assert text_of(out).rstrip().splitlines()[-1].strip().startswith("Loading safetensors")


def test_an_expectation_is_told_in_lines_too() -> None:
    out = console(False)
    board = Board(out, Time())
    board.join([A])
    board.show([LOADING])
    assert text_of(out) == "gpu10 vllm_a: loading weights: 1 of 2 files (50 %), 12.0 s, ~1:23 left\n"


def test_a_pull_is_a_row_with_figures() -> None:
    out, now = console(False), Time()
    board = Board(out, now)
    pulling = Pulling(board, "gpu10", "registry.lan/vllm/vllm-openai:v0.19.1", now)
    now.now = 16.0
    pulling.tell("pulled 1.20 of 8.10 GB, 3 of 12 layers")
    now.now = 40.0
    pulling.end(None)
    assert text_of(out).splitlines() == [
        "gpu10 vllm-openai:v0.19.1: pulling the image, 0.0 s",
        "still waiting for 1 of 1: vllm-openai:v0.19.1 pulling the image: 1.20 of 8.10 GB, 3 of 12 layers (15 %)",
        "gpu10 vllm-openai:v0.19.1: pulled, 40.0 s",
    ]


def test_a_pull_that_fails_says_why() -> None:
    error = "exit status 1\n    | driver failed: nvml error: driver not loaded"
    out = console(False)
    Pulling(Board(out, Time()), "gpu10", "vllm/vllm-openai:v0.19.1", Time()).end(error)
    assert "vllm-openai:v0.19.1: failed: the NVIDIA kernel module is not loaded" in text_of(out)
    told = explained(error)
    assert told.startswith(error)
    assert "remedy   run nvidia-smi on the host" in told
    assert explained("exit status 1\n    | no idea") == "exit status 1\n    | no idea"


def test_two_hosts_share_a_board_and_the_last_prints_the_summary() -> None:
    out = console(False)
    board = Board(out)
    good = (200, {"choices": [{"text": "Paris is"}]})
    numbers = (200, {"embeddings": [[0.5] * 4]})
    place = {"models": [{"name": "bge-m3:latest", "size": 5, "size_vram": 5}]}
    first = ScriptedHost([[Scene(0, inspect_json("vllm_a"), 200, answer=good)]])
    second = ScriptedHost([[Scene(0, inspect_json("ollama_b"), 200, answer=numbers, then=place)]])
    threads = [
        threading.Thread(
            target=wait_ready, args=(host.run, [one], board), kwargs={"clock": host.clock, "sleep": host.sleep}
        )
        for host, one in ((first, A), (second, B))
    ]
    board.join([])  # holds the board open until both have begun
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    board.leave([])
    shown = text_of(out)
    assert shown.count("2 of 2 instances answer: ") == 1
    assert re.search(r"vllm_a 0\.\d s", shown)


def test_words() -> None:
    assert (clock_text(8.44), clock_text(59.99), clock_text(187.4)) == ("8.4 s", "1:00", "3:07")
    assert bar(None).strip() == ""
    assert bar(50.0).count("█") == 5
    assert (left_text(None), left_text(41.7), left_text(187.4), left_text(5.0, 9.0)) == ("", "~42 s", "~3:07", "~0 s")
    assert (memory_text(LOADING), memory_text(DONE)) == ("5.3 of 32 GiB", "")
    assert phase_text(View(A, Progress(Phase.STARTING), 1.0, "connection lost, trying again")) == (
        "starting [connection lost, trying again]"
    )

"""The view: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import re
import threading

from ready_fakes import Scene, ScriptedHost, inspect_json
from rich.console import Console

from stoker.ready import Board, Target, wait_ready
from stoker.ready.board import bar, clock_text, gpu_label, phase_text
from stoker.ready.outcome import Verdict
from stoker.ready.phase import Phase, Progress
from stoker.ready.wait import View

A = Target("gpu10", "vllm_a", "vllm", "vllm_a", 11401, "llama", gpus=("GPU 0",))
B = Target("gpu65", "ollama_b", "ollama", "ollama_b", 11434, "bge-m3", gpus=("GPU-0a1b2c3d-aaaa",))


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def console(terminal: bool, width: int = 120) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


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


def test_table_on_a_wide_and_on_a_narrow_terminal() -> None:
    for width in (120, 60):
        out = console(True, width)
        board = Board(out, Time())
        board.join([A, B])
        board.show([View(A, Progress(Phase.LOADING, "1 of 2 files", 50.0), 12.0)])
        board.show([View(B, Progress(Phase.READY), 3.0, "1.2 GiB in GPU memory", Verdict.READY)])
        out.print(board.table())
        shown = text_of(out)
        assert "vllm_a" in shown
        assert "loading weights" in shown
        assert "12.0 s" in shown
        assert ("██████████░░░░░░░░░░" in shown) is (width == 120)
        assert max(map(len, shown.splitlines()[-8:])) <= 120
        board.leave([])


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
    assert bar(50.0).count("█") == 10
    assert gpu_label(B) == "GPU-0a1b2c3d"
    assert phase_text(View(A, Progress(Phase.STARTING), 1.0, "connection lost, trying again")) == (
        "starting [connection lost, trying again]"
    )

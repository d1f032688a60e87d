"""What counts as progress, what is expected from the last load, and what is found before a time limit."""

from __future__ import annotations

import json
import re

from ready_fakes import Scene, ScriptedHost
from ready_logs import VLLM_MEMORY_NOT_FREE, VLLM_WAITING
from test_ready_wait import GOOD, Notes, running, vllm, wait

from stoker.ready import Target, Verdict
from stoker.ready.limits import Limits
from stoker.ready.load_record import LoadRecord, read_record
from stoker.ready.phase import Phase, Progress
from stoker.ready.shown_line import last_line

CARD = "GPU-00000000-5b8e"
LIMITS = Limits(ceiling_seconds=1000.0, stall_seconds=60.0)


def with_card(name: str = "vllm_a") -> Target:
    return Target(
        "gpu10", name, "vllm", name, 11401, "llama3.1-8b", gpus=("0",), uuids=(CARD,), weights="meta/llama@main"
    )


def shards(done: int, of: int = 100) -> str:
    return f"(EngineCore pid=9) Loading safetensors checkpoint shards: {done}% Completed | {done}/{of} [00:05<00:05]\n"


def test_a_slow_load_that_gets_on_is_waited_for() -> None:
    scenes = [Scene(40.0 * n, running(), log=shards(n)) for n in range(20)]
    host = ScriptedHost([[*scenes, Scene(800.0, running(), 200, answer=GOOD)]])
    (outcome,) = wait(host, vllm(), limits=LIMITS)
    assert outcome.ok


def test_lines_that_say_the_same_again_are_progress_and_others_are_not() -> None:
    compiling = "(EngineCore pid=9) INFO 04-18 10:11:50 [backends.py:372] Compiling a graph for compile range (1, {n}) takes 15 s\n"
    for line, ok in ((compiling, True), ("still waiting for something {n}\n", False)):
        scenes = [Scene(40.0 * n, running(), log=line.format(n=n)) for n in range(6)]
        host = ScriptedHost([[*scenes, Scene(240.0, running(), 200, answer=GOOD)]])
        (outcome,) = wait(host, vllm(), limits=LIMITS)
        assert outcome.ok is ok


def test_a_hang_ends_at_the_limit_without_progress_and_is_told_so() -> None:
    host = ScriptedHost([[Scene(0, running()), Scene(10.0, running(), log=shards(3))]])
    (outcome,) = wait(host, vllm(), limits=LIMITS)
    assert outcome.verdict is Verdict.TIMED_OUT
    assert 70.0 <= outcome.seconds < 76.0
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "no-progress"
    report = outcome.report()
    for words in (
        "while loading weights: 3 of 100 files",
        "no progress for 6",
        "3/100",
        "stoker logs vllm_a",
        "docker logs",
    ):
        assert words in report


def test_progress_for_ever_ends_at_the_ceiling() -> None:
    scenes = [Scene(40.0 * n, running(), log=shards(n)) for n in range(60)]
    (outcome,) = wait(ScriptedHost([scenes]), vllm(), limits=LIMITS)
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "time-limit"
    assert 1000.0 <= outcome.seconds < 1005.0


def test_a_card_that_fills_is_progress() -> None:
    host = ScriptedHost([[Scene(0, running(), log=shards(0)), Scene(300.0, running(), 200, answer=GOOD)]])
    host.cards = lambda now: f"{CARD}, {int(now) * 10}, 32768"
    board = Notes()
    (outcome,) = wait(host, with_card(), limits=LIMITS, board=board)
    assert outcome.ok
    assert any(view.memory == (1000, 32768) for view in board.views if view.memory) or board.views[5].memory
    host = ScriptedHost([[Scene(0, running(), log=shards(0)), Scene(300.0, running(), 200, answer=GOOD)]])
    host.cards = lambda now: f"{CARD}, 500, 32768"
    (outcome,) = wait(host, with_card(), limits=LIMITS)
    assert outcome.verdict is Verdict.TIMED_OUT


def test_an_engine_that_printed_a_fatal_error_and_still_runs_has_failed() -> None:
    for after in (0.0, 1.3, 2.9):
        host = ScriptedHost(
            [[Scene(0, running(), log=shards(1)), Scene(30.0 + after, running(), log=VLLM_MEMORY_NOT_FREE)]]
        )
        (outcome,) = wait(host, vllm())
        assert outcome.verdict is Verdict.FAILED
        assert outcome.seconds - 30.0 - after < 5.0
        assert outcome.diagnosis
        assert outcome.diagnosis.id == "gpu-memory-not-free"
        assert outcome.note == "its process still runs"


def test_one_that_ends_by_itself_after_its_fatal_error_is_told_with_its_exit_code() -> None:
    dead = running(status="exited", exit_code=1)
    host = ScriptedHost(
        [
            [
                Scene(0, running(), log=shards(1)),
                Scene(30.0, running(), log=VLLM_MEMORY_NOT_FREE),
                Scene(30.8, dead, log=VLLM_MEMORY_NOT_FREE),
            ]
        ]
    )
    (outcome,) = wait(host, vllm())
    assert outcome.note == "exit code 1"


def test_an_error_that_an_engine_survives_is_none() -> None:
    host = ScriptedHost(
        [[Scene(0, running(), log=VLLM_MEMORY_NOT_FREE), Scene(0.3, running(), 200, VLLM_MEMORY_NOT_FREE, GOOD)]]
    )
    (outcome,) = wait(host, vllm())
    assert outcome.ok


def test_a_card_that_is_gone_is_a_failure_of_its_instances_only() -> None:
    other = "GPU-11111111-5b8e"
    lost = "Unable to determine the device handle for GPU0: 0000:3B:00.0: GPU is lost. Reboot the system to recover this GPU"

    def host() -> ScriptedHost:
        a = [Scene(0, running("vllm_a"), log=shards(1))]
        b = [Scene(0, running("vllm_b")), Scene(60.0, running("vllm_b"), 200, answer=GOOD)]
        made = ScriptedHost([a, b])
        made.cards = lambda now: f"{CARD}, 5, 9\n{other}, 5, 9\n" + (lost if now >= 20.0 else "")
        made.card_errors = {0: lost}
        return made

    second = Target("gpu10", "vllm_b", "vllm", "vllm_b", 11402, "llama3.1-8b", gpus=("1",), uuids=(other,))
    one, two = wait(host(), with_card(), second)
    assert one.verdict is Verdict.FAILED
    assert one.diagnosis
    assert one.diagnosis.id == "gpu-fault"
    assert "GPU is lost" in one.diagnosis.evidence
    assert two.ok


RECORD = LoadRecord(
    "vllm/vllm-openai:v0.19.1",
    "meta/llama@main",
    ("0",),
    {Phase.STARTING: 10.0, Phase.LOADING: 40.0, Phase.COMPILING: 50.0},
)


def test_what_remains() -> None:
    assert RECORD.remaining(Progress(Phase.STARTING), 4.0) == 96.0
    assert RECORD.remaining(Progress(Phase.LOADING), 10.0) == 80.0
    assert RECORD.remaining(Progress(Phase.LOADING, "", 75.0), 100.0) == 60.0
    assert RECORD.remaining(Progress(Phase.COMPILING), 70.0) == 0.0
    assert RECORD.remaining(Progress(Phase.WAITING_FOR_GPU), 70.0) == 100.0
    assert RECORD.remaining(Progress(Phase.PROFILING), 0.0) == 0.0
    assert read_record(RECORD.text()) == RECORD
    assert read_record("") is None
    assert read_record('{"image": 1}') is None
    assert read_record('{"image": "a", "weights": "b", "gpus": [], "seconds": {"A_PHASE_OF_LATER": 1}}') is None


def loading_once(history: str, target: Target) -> tuple[ScriptedHost, Notes]:
    waiting = Scene(0, running(), log=VLLM_WAITING)
    start = Scene(10.0, running(), log=VLLM_WAITING + "stoker: GPU lock taken after 10.0 s\n")
    host = ScriptedHost(
        [[waiting, start, Scene(30.0, running(), log=shards(50)), Scene(90.0, running(), 200, answer=GOOD)]]
    )
    host.history, board = history, Notes()
    (outcome,) = wait(host, target, board=board)
    assert outcome.ok
    return host, board


def test_the_load_is_noted_on_the_host_and_the_next_one_is_expected_by_it() -> None:
    host, board = loading_once("", with_card())
    assert {view.remaining for view in board.views} == {None}
    (written,) = [script for script in host.scripts if "/var/lib/stoker/loads/vllm_a.new" in script]
    found = re.search(r"'(\{.*\})'", written)
    assert found
    record = read_record(found[1])
    assert record
    assert record.is_of("vllm/vllm-openai:v0.19.1", "meta/llama@main", ("0",))
    assert 75.0 <= record.total <= 85.0
    assert 55.0 <= record.seconds[Phase.LOADING] <= 65.0

    _, board = loading_once(found[1], with_card())
    loading = [view for view in board.views if view.progress.phase is Phase.LOADING]
    assert loading[0].remaining is not None
    assert 25.0 <= loading[0].remaining <= 35.0  # half of the files are read


def test_the_record_of_another_model_or_image_is_no_expectation() -> None:
    other = json.loads(RECORD.text())
    for change in ({"weights": "meta/other@main"}, {"image": "vllm/vllm-openai:v0.18.1"}, {"gpus": ["1"]}):
        _, board = loading_once(json.dumps(other | change), with_card())
        assert {view.remaining for view in board.views} == {None}


def test_a_load_that_was_found_in_its_middle_is_not_noted() -> None:
    host = ScriptedHost([[Scene(0, running(), log=shards(50)), Scene(90.0, running(), 200, answer=GOOD)]])
    host.epoch = 1_800_000_000  # long after the container's start
    wait(host, vllm())
    assert not any("/var/lib/stoker/loads/vllm_a.new" in script for script in host.scripts)


def test_the_line_on_the_screen_has_no_secret_and_no_control_character() -> None:
    shown = {
        "non-default args: {'api_key': ['sk-1', 'sk-2'], 'port': 8000}": "non-default args: {'api_key': ***, 'port': 8000}",
        "Authorization: Bearer abc.def": "Authorization: Bearer ***",
        "HF_TOKEN=hf_abcdefghijkl": "HF_TOKEN=***",
        "using hf_abcdefghijkl": "using ***",
        "GET http://user:pw@proxy:3128/": "GET http://***@proxy:3128/",
        "GPU KV cache size: 65,024 tokens": "GPU KV cache size: 65,024 tokens",
        "\x1b[31mred\x1b[0m\x07 bell": "red bell",
    }
    assert {line: last_line(f"before\n{line}\n") for line in shown} == shown
    assert last_line("") == ""
    assert len(last_line("x" * 1000)) == 160

"""The wait, on scripted hosts and a fake clock: what it decides, when, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ready_fakes import Scene, ScriptedHost, inspect_json
from ready_logs import OLLAMA_LOADED, OLLAMA_OLD_DRIVER, VLLM_FULL_START, VLLM_MEMORY_NOT_FREE, VLLM_WAITING

from stoker.ready import Outcome, Target, Verdict, wait_ready
from stoker.ready.limits import Limits
from stoker.ready.phase import Phase
from stoker.ready.probe import unix_time
from stoker.ready.wait import ConnectionLost, View
from stoker.ready.watch import QUIET_SECONDS

GOOD = (200, {"choices": [{"text": " Paris, which lies on the Seine"}]})
NUMBERS = (200, {"embeddings": [[0.01] * 1024]})
RESIDENT = {"models": [{"name": "bge-m3:latest", "size": 1300000000, "size_vram": 1300000000}]}


@dataclass
class Notes:
    """A board that remembers."""

    views: list[View] = field(default_factory=list)
    joined: int = 0
    left: list[Outcome] = field(default_factory=list)

    def join(self, targets: Sequence[Target]) -> None:
        self.joined += 1

    def show(self, views: Sequence[View]) -> None:
        self.views += views

    def leave(self, outcomes: Sequence[Outcome]) -> None:
        self.left += outcomes

    def texts(self, name: str) -> list[str]:
        texts: list[str] = []
        for view in self.views:
            said = view.progress.text + (f" [{view.note}]" if view.note else "")
            if view.target.name == name and (not texts or texts[-1] != said):
                texts.append(said)
        return texts


def vllm(name: str = "vllm_a", gpu: str = "0", port: int = 11401) -> Target:
    return Target("gpu10", name, "vllm", name, port, "llama3.1-8b", gpus=(gpu,))


def ollama(name: str = "ollama_bge_0") -> Target:
    return Target("gpu65", name, "ollama", name, 11434, "bge-m3", expect_dimensions=1024, gpus=("0",))


def wait(host: ScriptedHost, *targets: Target, board: Notes | None = None, **options: Any) -> list[Outcome]:
    return wait_ready(host.run, targets, board or Notes(), clock=host.clock, sleep=host.sleep, **options)


def running(name: str = "vllm_a", **state: Any) -> dict[str, Any]:
    return inspect_json(name, **state)


def test_a_start_is_shown_phase_by_phase_and_ends_with_the_answer() -> None:
    parts = VLLM_FULL_START.splitlines(keepends=True)
    scenes = [Scene(0.0, running(), log="")]
    scenes += [Scene(4.0 * (n + 1), running(), log="".join(parts[: n + 1])) for n in range(len(parts))]
    scenes.append(Scene(200.0, running(), 200, VLLM_FULL_START, GOOD))
    host, board = ScriptedHost([scenes]), Notes()
    (outcome,) = wait(host, vllm(), board=board)
    assert outcome.ok
    assert 200.0 <= outcome.seconds <= 201.0
    texts = " | ".join(board.texts("vllm_a"))
    wanted = [
        "starting",
        "loading weights: 1 of 2 files",
        "loading weights: 5.35 GiB in GPU memory",
        "compiling",
        "measuring memory",
        "making the KV cache",
        "capturing CUDA graphs: 4 of 7",
        "server up",
        "ready",
    ]
    places = [texts.index(one) for one in wanted]
    assert places == sorted(places)
    assert board.joined == 1
    assert board.left == [outcome]


def test_phases_that_pass_between_two_looks_are_told_of_a_start_seen_from_its_beginning() -> None:
    half = VLLM_FULL_START[: VLLM_FULL_START.index("Available KV cache memory")]
    started = int(float(unix_time(running()["State"]["StartedAt"])))
    for age, passed in (
        (1, {Phase.STARTING: (), Phase.PROFILING: (Phase.LOADING, Phase.COMPILING)}),
        (300, {Phase.STARTING: (), Phase.PROFILING: ()}),
    ):
        scenes = [Scene(0, running(), log=""), Scene(9, running(), log=half)]
        scenes.append(Scene(20, running(), 200, VLLM_FULL_START, GOOD))
        host, board = ScriptedHost([scenes], epoch=started + age), Notes()
        assert wait(host, vllm(), board=board)[0].ok
        told = {view.progress.phase: view.passed for view in reversed(board.views)}  # by the first view of each phase
        assert {phase: told[phase] for phase in passed} == passed


def test_a_ready_engine_is_noticed_within_a_second() -> None:
    for offset in (0.0, 0.13, 0.29, 0.41):
        ready_at = 20.0 + offset
        host = ScriptedHost([[Scene(0, running()), Scene(ready_at, running(), 200, answer=GOOD)]], look_seconds=0.15)
        (outcome,) = wait(host, vllm())
        assert outcome.ok
        assert outcome.seconds - ready_at < 1.0


def test_a_dead_container_is_noticed_within_five_seconds_and_explained() -> None:
    dead = running(status="exited", exit_code=1, policy="no")
    host = ScriptedHost([[Scene(0, running()), Scene(30.0, dead, log=VLLM_MEMORY_NOT_FREE)]], look_seconds=0.15)
    (outcome,) = wait(host, vllm())
    assert outcome.verdict is Verdict.FAILED
    assert outcome.seconds - 30.0 < 5.0
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "gpu-memory-not-free"
    report = outcome.report()
    assert "gpu10: vllm_a failed" in report
    assert "docs/troubleshooting.md#gpu-memory-not-free" in report
    assert "Free memory on device" in report
    assert outcome.lines


def test_a_restart_loop_fails_at_once_when_another_try_cannot_help() -> None:
    log = "(APIServer pid=1) usage: vllm serve\nvllm: error: unrecognized arguments: --task=embed\n"
    again = running(status="restarting", exit_code=2, restarts=1)
    host = ScriptedHost([[Scene(0, running()), Scene(5.0, again, log=log)]])
    (outcome,) = wait(host, vllm())
    assert outcome.verdict is Verdict.FAILED
    assert outcome.seconds < 7.0
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "unknown-argument"
    assert "--runner pooling" in outcome.diagnosis.remedy


def test_a_failure_that_may_heal_gets_one_more_start() -> None:
    race = "(EngineCore pid=9) ERROR AssertionError: Error in memory profiling. Initial free memory 8.0 GiB, current free memory 9.1 GiB.\n"
    first = running(status="restarting", exit_code=1, restarts=1)
    second = running(restarts=1, started_at="2026-11-20T10:01:00Z")
    healed = ScriptedHost(
        [
            [
                Scene(0, running()),
                Scene(5.0, first, log=race),
                Scene(6.0, second),
                Scene(20.0, second, 200, answer=GOOD),
            ]
        ]
    )
    (outcome,) = wait(healed, vllm())
    assert outcome.ok
    third = running(status="restarting", exit_code=1, restarts=2, started_at="2026-11-20T10:01:00Z")
    loop = ScriptedHost(
        [[Scene(0, running()), Scene(5.0, first, log=race), Scene(6.0, second), Scene(9.0, third, log=race)]]
    )
    (outcome,) = wait(loop, vllm())
    assert outcome.verdict is Verdict.FAILED
    assert outcome.seconds < 11.0
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "memory-profiling-race"


def test_a_crash_between_two_looks_is_seen_by_its_restart_count() -> None:
    after = running(restarts=2, started_at="2026-11-20T10:01:00Z")
    host = ScriptedHost([[Scene(0, running()), Scene(5.0, after, log="RuntimeError: something new\n")]])
    (outcome,) = wait(host, vllm())
    assert outcome.verdict is Verdict.FAILED
    assert outcome.diagnosis
    assert outcome.diagnosis.evidence == "RuntimeError: something new"
    fetch = [script for script in host.scripts if "until=" in script]
    assert fetch, "the log of the dead run lies between the two starts"


def test_restarts_of_long_ago_do_not_count() -> None:
    host = ScriptedHost([[Scene(0, running(restarts=7)), Scene(3.0, running(restarts=7), 200, answer=GOOD)]])
    (outcome,) = wait(host, vllm())
    assert outcome.ok


def test_docker_that_cannot_start_it_is_quoted() -> None:
    error = 'could not select device driver "nvidia" with capabilities: [[gpu]]'
    host = ScriptedHost([[Scene(0, running(status="created", exit_code=128, error=error))]])
    (outcome,) = wait(host, vllm())
    assert outcome.verdict is Verdict.FAILED
    assert outcome.seconds < 2.0
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "no-nvidia-runtime"


def test_no_container_is_given_a_moment_and_then_named() -> None:
    (outcome,) = wait(ScriptedHost([[Scene(0, None)]]), vllm())
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "no-container"
    assert 10.0 <= outcome.seconds < 12.0
    back = ScriptedHost([[Scene(0, running()), Scene(2.0, None), Scene(5.0, running(), 200, answer=GOOD)]])
    (outcome,) = wait(back, vllm())
    assert outcome.ok


def test_one_failure_does_not_end_the_wait_for_the_others() -> None:
    dead = running("vllm_a", status="exited", exit_code=1)
    host = ScriptedHost(
        [
            [Scene(0, running("vllm_a")), Scene(3.0, dead, log=VLLM_MEMORY_NOT_FREE)],
            [Scene(0, running("vllm_b")), Scene(30.0, running("vllm_b"), 200, answer=GOOD)],
        ]
    )
    a, b = wait(host, vllm("vllm_a"), vllm("vllm_b", "1", 11402))
    assert a.verdict is Verdict.FAILED
    assert a.seconds < 5.0
    assert b.ok


def test_healthy_and_then_dead_is_a_failure_also_while_others_load() -> None:
    host = ScriptedHost(
        [
            [
                Scene(0, running("vllm_a"), 200, answer=GOOD),
                Scene(5.0, running("vllm_a", status="restarting", restarts=1), log="ValueError: the engine broke\n"),
                Scene(8.0, running("vllm_a", status="restarting", restarts=2), log="ValueError: the engine broke\n"),
            ],
            [Scene(0, running("vllm_b")), Scene(30.0, running("vllm_b"), 200, answer=GOOD)],
        ]
    )
    a, b = wait(host, vllm("vllm_a"), vllm("vllm_b", "1", 11402))
    assert a.verdict is Verdict.FAILED
    assert "had answered" in a.note
    assert b.ok


def test_an_engine_that_dies_just_after_its_answer_is_not_ready() -> None:
    """The question itself may have killed it: nothing else is waited for, and yet it is looked at once more."""
    died = running(status="restarting", exit_code=1, restarts=1)
    host = ScriptedHost([[Scene(0, running(), 200, answer=GOOD), Scene(0.8, died), Scene(3.0, running(restarts=2))]])
    (outcome,) = wait(host, vllm())
    assert outcome.verdict is Verdict.FAILED
    assert "had answered" in outcome.note


def test_an_engine_that_dies_of_the_first_request_is_not_ready() -> None:
    up = Scene(3.0, running(), 200)  # health is fine and no answer comes
    dead = running(status="restarting", exit_code=0, restarts=1)
    host = ScriptedHost(
        [
            [
                Scene(0, running()),
                up,
                Scene(4.0, running(), 503),
                Scene(6.0, dead),
                Scene(9.0, running(status="restarting", restarts=2)),
            ]
        ]
    )
    board = Notes()
    (outcome,) = wait(host, vllm(), board=board)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "ended-without-error"
    assert any("engine process is dead" in text for text in board.texts("vllm_a"))


def test_a_wrong_answer_is_a_failure() -> None:
    host = ScriptedHost([[Scene(0, running(), 200, answer=(200, {"choices": [{"text": "!!!!!!!!"}]}))]])
    (outcome,) = wait(host, vllm())
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "repeated-character"


def test_a_server_error_is_asked_about_three_times() -> None:
    host = ScriptedHost([[Scene(0, running(), 200, answer=(500, {"error": "busy"}))]])
    (outcome,) = wait(host, vllm())
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "request-refused"
    assert sum("tell 0 " in script for script in host.scripts) == 3
    one_try = [Scene(0, running(), 200, answer=(500, {"error": "busy"})), Scene(0.7, running(), 200, answer=GOOD)]
    (outcome,) = wait(ScriptedHost([one_try]), vllm())
    assert outcome.ok


def test_ollama_is_ready_when_its_model_lies_in_gpu_memory() -> None:
    up = running("ollama_bge_0")
    host = ScriptedHost([[Scene(0, up), Scene(2.0, up, 200, OLLAMA_LOADED, NUMBERS, RESIDENT)]])
    (outcome,) = wait(host, ollama())
    assert outcome.ok
    assert outcome.note == "1.2 GiB in GPU memory"


def test_ollama_on_the_cpu_fails_and_its_log_says_why() -> None:
    on_cpu = {"models": [{"name": "bge-m3:latest", "size": 1300000000, "size_vram": 0}]}
    up = running("ollama_bge_0")
    host = ScriptedHost([[Scene(0, up, 200, "", NUMBERS, on_cpu)]])
    (outcome,) = wait(host, ollama())
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "ollama-on-cpu"
    assert "570" in outcome.diagnosis.remedy
    host = ScriptedHost([[Scene(0, up, 200, OLLAMA_OLD_DRIVER, NUMBERS, on_cpu)]])
    (outcome,) = wait(host, ollama())
    assert outcome.diagnosis
    assert outcome.diagnosis.id == "ollama-driver-too-old"


def test_neighbours_on_a_gpu_wait_for_each_other_and_their_time_is_not_counted() -> None:
    def chain(answer_at: float) -> list[Scene]:
        return [
            Scene(0, running("vllm_b"), log=VLLM_WAITING),
            Scene(80.0, running("vllm_b"), log=VLLM_WAITING + "stoker: GPU lock taken after 80.0 s\n"),
            Scene(answer_at, running("vllm_b"), 200, answer=GOOD),
        ]

    loading = Scene(0, running("vllm_a"), log="INFO 04-18 10:00:00 [x.py:1] Starting to load model /m...\n")
    a = [loading, Scene(80.0, running("vllm_a"), 200, answer=GOOD)]
    board = Notes()
    host = ScriptedHost([a, chain(160.0)])
    first, second = wait(host, vllm("vllm_a"), vllm("vllm_b"), board=board, limits=Limits(100.0))
    assert first.ok
    assert second.ok
    assert second.seconds >= 160.0
    assert "waiting for the GPU: vllm_a loads first" in board.texts("vllm_b")
    host = ScriptedHost([a, chain(1000.0)])
    _, second = wait(host, vllm("vllm_a"), vllm("vllm_b"), limits=Limits(100.0))
    assert second.verdict is Verdict.TIMED_OUT
    assert 180.0 <= second.seconds < 185.0


def test_a_neighbour_that_hangs_on_the_gpu_blocks_the_next_and_is_named() -> None:
    hang = [Scene(0, running("vllm_a"), log="INFO 04-18 10:00:00 [x.py:1] Starting to load model /m...\n")]
    behind = [Scene(0, running("vllm_b"), log=VLLM_WAITING)]
    first, second = wait(ScriptedHost([hang, behind]), vllm("vllm_a"), vllm("vllm_b"), limits=Limits(60.0))
    assert first.verdict is Verdict.TIMED_OUT
    assert first.diagnosis
    assert first.diagnosis.id == "time-limit"
    assert second.verdict is Verdict.BLOCKED
    assert second.seconds < 63.0
    assert second.diagnosis
    assert "vllm_a" in second.diagnosis.cause
    assert second.diagnosis.id == "gpu-held-by-neighbour"


def test_a_failed_neighbour_is_named_while_waiting() -> None:
    dead = running("vllm_a", status="exited", exit_code=1)
    board = Notes()
    host = ScriptedHost(
        [
            [Scene(0, dead, log=VLLM_MEMORY_NOT_FREE)],
            [Scene(0, running("vllm_b"), log=VLLM_WAITING), Scene(9.0, running("vllm_b"), 200, answer=GOOD)],
        ]
    )
    _, second = wait(host, vllm("vllm_a"), vllm("vllm_b"), board=board)
    assert second.ok
    assert any("vllm_a failed before it" in text for text in board.texts("vllm_b"))


def test_a_lost_connection_is_shown_and_survived() -> None:
    host = ScriptedHost([[Scene(0, running()), Scene(20.0, running(), 200, answer=GOOD)]])
    host.fails = [(9.0, 13.0, ConnectionLost("reset by peer")), (14.0, 15.0, OSError("no route"))]
    board = Notes()
    (outcome,) = wait(host, vllm(), board=board)
    assert outcome.ok
    assert any("connection lost" in text for text in board.texts("vllm_a"))


def test_a_host_that_stays_away_ends_at_the_time_limit() -> None:
    host = ScriptedHost([[Scene(0, running())]])
    host.fails = [(5.0, 1e9, ConnectionLost("timed out"))]
    (outcome,) = wait(host, vllm(), limits=Limits(60.0))
    assert outcome.verdict is Verdict.UNREACHABLE
    assert 60.0 <= outcome.seconds < 65.0


def test_output_that_cannot_be_read_ends_the_wait_soon() -> None:
    from stoker.ready import RunResult

    host = ScriptedHost([[Scene(0, running())]])

    def refused(script: str) -> RunResult:
        host.now += 0.1
        return RunResult(1, "", "sudo: a password is required\n")

    (outcome,) = wait_ready(refused, [vllm()], Notes(), clock=host.clock, sleep=host.sleep)
    assert outcome.verdict is Verdict.FAILED
    assert 20.0 <= outcome.seconds < 25.0
    assert outcome.diagnosis
    assert "password" in outcome.diagnosis.evidence


def test_an_interrupt_ends_the_wait_and_keeps_what_is_known() -> None:
    host = ScriptedHost([[Scene(0, running())]])
    (outcome,) = wait(host, vllm(), interrupted=lambda: host.now > 7.0)
    assert outcome.verdict is Verdict.INTERRUPTED
    assert outcome.seconds < 7.0 + QUIET_SECONDS + 1.0
    assert outcome.progress.phase is Phase.STARTING


def test_a_stamp_is_written_after_the_answer() -> None:
    host = ScriptedHost([[Scene(0, running(), 200, answer=GOOD)]])
    wait(host, vllm())
    (written,) = [script for script in host.scripts if "/var/lib/stoker/ready/vllm_a" in script]
    assert "id-of-vllm_a 2026-11-20T10:00:00.123456789Z" in written


def test_logs_are_fetched_now_and_then_and_not_once_ready() -> None:
    a = [Scene(0, running("vllm_a"), 200, answer=GOOD)]
    b = [Scene(at, running("vllm_b"), log=f"line {at}\n") for at in range(60)]
    host = ScriptedHost([a, [*b, Scene(60.0, running("vllm_b"), 200, answer=GOOD)]])
    wait(host, vllm("vllm_a"), vllm("vllm_b", "1"))
    assert sum("log 0\\n" in script for script in host.scripts) <= 1
    assert 15 <= sum("log 1\\n" in script for script in host.scripts) <= 25
    assert host.looks <= 30


def test_a_silent_load_is_looked_at_seldom() -> None:
    host = ScriptedHost([[Scene(0, running()), Scene(120.0, running(), 200, answer=GOOD)]])
    (outcome,) = wait(host, vllm())
    assert outcome.seconds < 121.5
    assert host.looks < 20

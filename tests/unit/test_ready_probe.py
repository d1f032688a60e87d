"""The probe script, run by a real /bin/sh and curl against a Docker socket and engines made for the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ready_fakes import FakeDocker, FakeEngine, frame, free_port, inspect_json
from support.stubs import Stubs

from stoker.ready.hold import Heed
from stoker.ready.probe import (
    HostSeen,
    LogWish,
    Look,
    build_script,
    parse_output,
    start_key,
    unix_time,
    without_frames,
)
from stoker.ready.question import question
from stoker.ready.stamp import is_proven, stamp_text
from stoker.ready.target import Target

STARTED = "2026-11-20T10:00:00.123456789Z"
BOUNDARY = "stoker-0123456789abcdef"


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[FakeDocker]:
    fake = FakeDocker(tmp_path / "docker.sock").start()
    yield fake
    fake.stop()


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    fake = FakeEngine().start()
    yield fake
    fake.stop()


def vllm(port: int, container: str = "vllm_llama_gpu0_0") -> Target:
    return Target("gpu10", container, "vllm", container, port, "llama3.1-8b")


def ollama(port: int, container: str = "ollama_bge_0") -> Target:
    return Target("gpu65", container, "ollama", container, port, "bge-m3", expect_dimensions=1024)


def asking(target: Target) -> Look:
    return Look(target, start=start_key("id-of-" + target.container, STARTED), question=question(target))


class Shell:
    """Runs probe scripts in a directory of the test."""

    def __init__(self, root: Path, docker: FakeDocker | None = None) -> None:
        self.root = root
        self.socket = str(docker.path) if docker else str(root / "no-such.sock")

    def __call__(self, *looks: Look, stamps: dict[str, str] | None = None) -> HostSeen:
        script = build_script(
            looks,
            BOUNDARY,
            stamps=stamps,
            docker_socket=self.socket,
            work_directory=str(self.root / "run"),
            stamp_directory=str(self.root / "stamps"),
        )
        done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=30)
        assert done.stderr == ""
        assert done.returncode == 0
        return parse_output(done.stdout, looks, BOUNDARY)


def test_states_of_a_running_a_loading_and_a_missing_container(
    tmp_path: Path, docker: FakeDocker, engine: FakeEngine
) -> None:
    engine.answers["GET /health"] = (200, "")
    docker.containers = {
        "vllm_a": inspect_json("vllm_a"),
        "vllm_b": inspect_json("vllm_b", status="restarting", exit_code=1, restarts=3),
    }
    targets = [vllm(engine.port, "vllm_a"), vllm(free_port(), "vllm_b"), vllm(free_port(), "vllm_c")]
    seen = Shell(tmp_path, docker)(*(Look(target) for target in targets))
    a, b, c = seen.instances
    assert a.container
    assert a.code == 200
    assert (a.container.status, a.container.started_at) == ("running", STARTED)
    assert b.container
    assert b.code == 0
    assert (b.container.status, b.container.exit_code, b.container.restarts) == ("restarting", 1, 3)
    assert c.container is None


def test_docker_down_and_no_curl_are_told_apart(tmp_path: Path) -> None:
    look = Look(vllm(free_port()))
    assert Shell(tmp_path)(look).docker_down
    script = build_script([look], BOUNDARY)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, env={"PATH": str(empty)})
    assert "no curl" in parse_output(done.stdout, [look], BOUNDARY).trouble


def test_output_of_something_else_is_trouble() -> None:
    look = Look(vllm(1))
    for output in ("", "sudo: a password is required\n", f"{BOUNDARY} state 0 200\n"):
        assert parse_output(output, [look], BOUNDARY).trouble


def test_log_is_cut_to_its_end_and_to_one_start(tmp_path: Path, docker: FakeDocker) -> None:
    docker.containers["vllm_a"] = inspect_json("vllm_a")
    docker.logs["vllm_a"] = b"".join(frame(f"line {n}\n", 1 + n % 2) for n in range(1000))
    wish = LogWish(STARTED, until="2026-11-20T10:05:00Z", lines=50, size=500)
    (seen,) = Shell(tmp_path, docker)(Look(vllm(free_port(), "vllm_a"), log=wish)).instances
    assert seen.log is not None
    lines = seen.log.splitlines()
    assert lines[-1] == "line 999"
    assert lines[1].startswith("line 9")
    assert len(seen.log) <= 500
    query = docker.queries[0]
    assert query["since"] == [unix_time(STARTED, -0.2)]
    assert query["until"] == [unix_time("2026-11-20T10:05:00Z")]
    assert query["tail"] == ["50"]


def test_frames_text_of_a_terminal_and_a_cut_begin() -> None:
    assert without_frames(frame("a\n") + frame("b\n", 2)) == b"a\nb\n"
    assert without_frames(b"plain text\n") == b"plain text\n"
    assert without_frames(b"est of a line\n" + frame("whole\n")) == b"whole\n"
    assert without_frames(frame("cut short")[:-4]) == b"cut s"


def test_docker_times_become_seconds() -> None:
    assert unix_time("1970-01-01T00:01:00Z") == "60.000000"
    assert unix_time("1970-01-01T00:01:00.987654321Z") == "60.987654"


def test_a_healthy_instance_is_asked_in_the_same_look(tmp_path: Path, docker: FakeDocker, engine: FakeEngine) -> None:
    engine.answers = {
        "GET /health": (200, ""),
        "POST /v1/completions": (200, {"choices": [{"text": " Paris."}]}),
    }
    target = vllm(engine.port)
    docker.containers[target.container] = inspect_json(target.container)
    (seen,) = Shell(tmp_path, docker)(asking(target)).instances
    assert seen.answer
    assert seen.answer.code == 200
    assert "Paris" in seen.answer.body
    assert seen.answer_start == start_key("id-of-" + target.container, STARTED)
    assert [path for path, _ in engine.asked].count("POST /v1/completions") == 1


def test_a_slow_first_answer_comes_with_a_later_look(tmp_path: Path, docker: FakeDocker, engine: FakeEngine) -> None:
    engine.hold = threading.Event()
    engine.answers = {
        "GET /api/version": (200, {"version": "0.32.15"}),
        "POST /api/embed": (200, {"embeddings": [[0.5] * 1024]}),
        "GET /api/ps": (200, {"models": [{"name": "bge-m3:latest", "size": 5, "size_vram": 5}]}),
    }
    target = ollama(engine.port)
    docker.containers[target.container] = inspect_json(target.container)
    shell = Shell(tmp_path, docker)
    for _ in range(2):  # the second look must not ask again
        (seen,) = shell(asking(target)).instances
        assert seen.answer is None
        assert seen.code == 200
    engine.hold.set()
    limit = time.monotonic() + 20
    while seen.answer is None and time.monotonic() < limit:
        (seen,) = shell(asking(target)).instances
    assert seen.answer
    assert "size_vram" in seen.answer.then_body
    assert "embeddings" in seen.answer.body
    assert [path for path, _ in engine.asked].count("POST /api/embed") == 1


def test_whoever_watches_anew_takes_no_half_answer(tmp_path: Path, docker: FakeDocker, engine: FakeEngine) -> None:
    """A watch that asks its first question again leaves the second one of the watch before it alone."""
    engine.answers = {"GET /health": (200, ""), "POST /v1/completions": (200, {"choices": [{"text": "new"}]})}
    target = vllm(engine.port)
    docker.containers[target.container] = inspect_json(target.container)
    shell = Shell(tmp_path, docker)
    first, second = asking(target), replace(asking(target), start=start_key("id-of-" + target.container, "second"))
    engine.hold = threading.Event()
    assert shell(second).instances[0].answer is None
    engine.hold.set()  # a new watch begins while that one is under way
    (seen,) = shell(first).instances
    assert seen.answer
    assert seen.answer.code == 200
    limit = time.monotonic() + 20
    while (seen := shell(second).instances[0]).answer is None and time.monotonic() < limit:
        pass
    assert seen.answer
    assert (seen.answer.code, "new" in seen.answer.body) == (200, True)
    assert [path for path, _ in engine.asked].count("POST /v1/completions") == 2


def test_an_answer_of_an_older_start_is_not_taken(tmp_path: Path, docker: FakeDocker, engine: FakeEngine) -> None:
    engine.answers = {"GET /health": (200, ""), "POST /v1/completions": (200, {"choices": [{"text": "new"}]})}
    target = vllm(engine.port)
    docker.containers[target.container] = inspect_json(target.container)
    run = tmp_path / "run"
    run.mkdir()
    (run / f"{target.container}.0123456789abcdef.done").write_text("200 0.1 ")
    (run / f"{target.container}.0123456789abcdef.body").write_text('{"choices": [{"text": "old"}]}')
    for file in run.iterdir():
        os.utime(file, (0, 0))
    (seen,) = Shell(tmp_path, docker)(asking(target)).instances
    assert seen.answer
    assert "new" in seen.answer.body
    assert not list(run.glob("*.0123456789abcdef.*"))


def test_stamps_are_written_read_and_compared(tmp_path: Path, docker: FakeDocker) -> None:
    target = vllm(free_port())
    docker.containers[target.container] = inspect_json(target.container)
    Shell(tmp_path, docker)(Look(target), stamps={target.container: stamp_text("abc", STARTED)})
    stamp = (tmp_path / "stamps" / target.container).read_text()
    assert stamp == f"abc {STARTED}\n"
    assert is_proven("abc", STARTED, stamp)
    assert not is_proven("abc", "2026-11-20T11:00:00Z", stamp)
    assert not is_proven("def", STARTED, stamp)
    assert not is_proven("abc", STARTED, "")


class Holding:
    """A look that holds for long, in a process of its own, while the test lets something happen."""

    def __init__(self, root: Path, docker: FakeDocker, heed: Heed, target: Target) -> None:
        (root / "run").mkdir(exist_ok=True)
        look = Look(target, heed=heed)
        script = build_script(
            [look],
            BOUNDARY,
            hold_seconds=HOLD_SECONDS,
            heed_cards=True,
            docker_socket=str(docker.path),
            work_directory=str(root / "run"),
        )
        self.looks = [look]
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ended(self) -> float:
        """Seconds until it has looked."""
        output, errors = self.process.communicate(timeout=2 * HOLD_SECONDS)
        assert errors == ""
        assert not parse_output(output, self.looks, BOUNDARY).trouble
        return time.monotonic() - self.begun


HOLD_SECONDS = 30


def test_a_hold_ends_when_the_process_is_gone(tmp_path: Path, docker: FakeDocker) -> None:
    engine = subprocess.Popen(["sleep", "60"])
    holding = Holding(tmp_path, docker, Heed(pid=engine.pid), vllm(free_port()))
    engine.kill()
    engine.wait()
    assert holding.ended() < HOLD_SECONDS / 2


def test_a_hold_ends_when_health_changes(tmp_path: Path, docker: FakeDocker, engine: FakeEngine) -> None:
    engine.answers["GET /health"] = (200, "")
    for port, known, ends in ((engine.port, 0, True), (free_port(), 200, True)):
        heed = Heed(address="127.0.0.1", port=port, path="/health", code=known)
        assert (Holding(tmp_path, docker, heed, vllm(port)).ended() < HOLD_SECONDS / 2) is ends
    assert ("GET /health", "") in engine.asked


def test_a_hold_ends_when_the_log_grows_or_an_answer_comes_or_a_card_is_gone(
    tmp_path: Path, docker: FakeDocker
) -> None:
    log = tmp_path / "json.log"
    log.write_text("")
    Holding(tmp_path, docker, Heed(pid=1), vllm(free_port())).process.kill()
    mark = tmp_path / "run" / "mark"
    mark.write_text("")
    os.utime(log, (1, 1))
    holding = Holding(tmp_path, docker, Heed(log_path=str(log)), vllm(free_port()))
    log.write_text("a line\n")
    os.utime(log, (mark.stat().st_mtime + 1,) * 2)
    assert holding.ended() < HOLD_SECONDS / 2
    holding = Holding(tmp_path, docker, Heed(answer=str(tmp_path / "answer")), vllm(free_port()))
    (tmp_path / "answer").write_text("")
    assert holding.ended() < HOLD_SECONDS / 2
    holding = Holding(tmp_path, docker, Heed(), vllm(free_port()))
    (tmp_path / "run" / "cards").write_text(
        "GPU-1, 3, 4\nUnable to determine the device handle for GPU0: GPU is lost.\n"
    )
    assert holding.ended() < HOLD_SECONDS / 2


def test_a_hold_of_an_engine_that_accepts_and_resets_goes_on(tmp_path: Path, docker: FakeDocker) -> None:
    """As Docker's proxy does while the engine does not listen yet."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset() -> None:
            for _ in range(2):
                server.accept()[0].close()

        thread = threading.Thread(target=reset)
        thread.start()
        heed = Heed(
            address="127.0.0.1", port=server.getsockname()[1], path="/health", code=0, answer=str(tmp_path / "answer")
        )
        holding = Holding(tmp_path, docker, heed, vllm(free_port()))
        thread.join(HOLD_SECONDS / 2)
        assert holding.process.poll() is None
        (tmp_path / "answer").write_text("")
        assert holding.ended() < HOLD_SECONDS / 2


def test_the_cards_are_sampled_by_one_process_that_holds_nothing_up(tmp_path: Path, docker: FakeDocker) -> None:
    stubs = Stubs(tmp_path / "stubs", os.environ["PATH"])
    stubs.add("nvidia-smi", f"echo start >>{tmp_path}/starts; echo 'GPU-1, 5427, 32768'; exec sleep 60")
    look = Look(vllm(free_port()))
    script = build_script(
        [look], BOUNDARY, cards=True, docker_socket=str(docker.path), work_directory=str(tmp_path / "run")
    )
    memory: object = {}
    limit = time.monotonic() + 20
    try:
        while not memory and time.monotonic() < limit:
            done = stubs.run(script)
            memory = parse_output(done.stdout, [look], BOUNDARY).cards.memory
    finally:
        os.kill(int((tmp_path / "run" / "cards.pid").read_text()), signal.SIGTERM)
    assert memory == {"GPU-1": (5427, 32768)}
    assert (tmp_path / "starts").read_text() == "start\n"

"""`stoker load-time`: what is put aside and back, which phases are read from the log, and what it says."""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.fleet import make_fleet

from stoker.operate.interrupts import INTERRUPTED
from stoker.ready.phase import Phase
from stoker.ready.spans import spans
from stoker.run import load_time
from stoker.smoke.ssh import AccessError

QWEN = "vllm_qwen_gpu2"

#: A start behind a neighbour's, by Docker's times; the seconds of each phase are what the tests look for.
LOG = """\
2026-11-20T10:00:00.000000000Z stoker: start, locks GPU-a.lock
2026-11-20T10:00:00.100000000Z stoker: waiting for the GPU (lock GPU-a.lock) for 0 s, held by vllm_a for 3 s
2026-11-20T10:00:50.000000000Z stoker: GPU lock taken after 50.0 s
2026-11-20T10:00:52.000000000Z (APIServer pid=7) INFO 11-20 10:00:52 [utils.py:233] non-default args: {}
2026-11-20T10:01:00.000000000Z (EngineCore pid=9) INFO 11-20 10:01:00 [gpu_model_runner.py:4736] Starting to load model /m...
2026-11-20T10:01:25.000000000Z (EngineCore pid=9) INFO 11-20 10:01:25 [default_loader.py:385] Loading weights took {weights} seconds
2026-11-20T10:01:30.000000000Z (EngineCore pid=9) INFO 11-20 10:01:30 [backends.py:1052] Using cache directory: /c for vLLM's torch.compile
2026-11-20T10:02:10.000000000Z (EngineCore pid=9) INFO 11-20 10:02:10 [monitor.py:76] Initial profiling/warmup run took 1.00 s
2026-11-20T10:02:12.500000000Z (EngineCore pid=9) INFO 11-20 10:02:12 [core.py:284] init engine (profile, create kv cache, warmup model) took 70 seconds
2026-11-20T10:02:13.000000000Z stoker: engine answers, GPU lock released after 83.0 s
2026-11-20T10:09:00.000000000Z a line of its service
"""
PHASES = {
    "starting": 10.0,
    "loading weights": 30.0,
    "compiling": 40.0,
    "measuring memory": 2.5,
    "until it answers": 83.0,
}


def test_the_phases_of_a_start() -> None:
    assert load_time.phases(QWEN, LOG) == PHASES


def test_a_progress_bar_is_one_line() -> None:
    bar = "2026-11-20T10:01:10.000000000Z \r(EngineCore pid=9) shards: 0%\r(EngineCore pid=9) shards: 100%\n"
    before, after = LOG[: LOG.index("2026-11-20T10:01:25")], LOG[LOG.index("2026-11-20T10:01:25") :]
    assert load_time.phases(QWEN, before + bar + after) == PHASES


@pytest.mark.parametrize("missing", ["stoker: GPU lock taken", "stoker: engine answers"])
def test_a_log_without_its_first_or_last_line_is_told(missing: str) -> None:
    log = "".join(line for line in LOG.splitlines(keepends=True) if missing not in line)
    with pytest.raises(load_time.NotMeasured, match=f"`{missing}.*docker logs"):
        load_time.phases(QWEN, log)


def test_the_log_is_asked_from_a_little_before_the_start_on(host: Host) -> None:
    """Its first lines may be older than the time that Docker says."""
    assert load_time.carry_out(QWEN, 5, host.run) == load_time.DONE
    (asked,) = {command for command in host.said if command.startswith("docker logs")}
    assert asked == f"docker logs --timestamps --since 1795168799.800000 {QWEN} 2>&1"


def test_a_phase_that_is_named_again_later_does_not_begin_anew() -> None:
    lines = [
        (0.0, "Starting to load model x"),
        (4.0, "torch.compile took 2 s"),
        (5.0, "Loading weights took 3 seconds"),
    ]
    assert spans([*lines, (9.0, "Application startup complete")]) == {Phase.LOADING: 4.0, Phase.COMPILING: 5.0}


def test_the_table() -> None:
    warm = {**PHASES, "loading weights": 1.25, "until it answers": 54.25}
    assert load_time.table({"cold": PHASES, "warm": warm}).splitlines() == [
        "seconds              cold     warm",
        "starting             10.0     10.0",
        "loading weights      30.0      1.2",
        "compiling            40.0     40.0",
        "measuring memory      2.5      2.5",
        "until it answers     83.0     54.2",
    ]


@dataclass
class Host:
    """A host whose files are real and whose Docker is canned."""

    root: Path
    log: str = LOG
    said: list[str] = field(default_factory=list)
    #: What happens before a command: raises, perhaps.
    before: Callable[[str], None] = lambda _: None
    #: What the card's cache holds at each start.
    at_start: list[set[str]] = field(default_factory=list)

    @property
    def cache(self) -> Path:
        return self.root / "cache/GPU-a"

    @property
    def lock(self) -> Path:
        return self.root / "locks/GPU-a.lock"

    def run(self, command: str, seconds: float) -> str:
        self.said.append(command)
        self.before(command)
        words = command.split()
        if words[:2] == ["docker", "inspect"]:
            lock = ["--lock", "/run/stoker/locks/GPU-a.lock"]
            inspected = {
                "Args": [
                    "--lock",
                    "/run/stoker/locks/GPU-b.lock",
                    *lock,
                    "--weights",
                    "/model_data/m",
                    "--",
                    "vllm",
                    "serve",
                ],
                "Mounts": [
                    {"Source": str(self.root / "models"), "Destination": "/model_data"},
                    {"Source": str(self.cache), "Destination": "/var/cache/stoker"},
                    {"Source": str(self.root / "locks"), "Destination": "/run/stoker/locks"},
                ],
            }
            return json.dumps({"StartedAt": "2026-11-20T10:00:00Z"} if "-f" in words else [inspected])
        if words[:2] == ["docker", "logs"]:
            (self.cache / f"compiled-{len(self.at_start)}").touch()
            return self.log
        if command == f"docker start {QWEN}":
            self.at_start.append({path.name for path in self.cache.iterdir()})
        local = command.replace(f"docker stop {QWEN}", "true").replace(f"docker start {QWEN}", "true")
        ended = subprocess.run(["sh", "-c", local], check=False, capture_output=True, text=True)
        if ended.returncode:
            raise AccessError(f"exit code {ended.returncode}: {ended.stderr}", "run the command by hand")
        return ended.stdout


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(load_time, "as_keyboard_interrupt", lambda: None)  # signals are the test run's own
    monkeypatch.setattr(load_time, "_LOCK_SECONDS", 0.1)
    made = Host(tmp_path)
    made.cache.mkdir(parents=True)
    made.lock.parent.mkdir()
    made.lock.touch()
    (made.cache / "kept").touch()
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/model.safetensors").write_bytes(bytes(4096))
    return made


def test_a_cold_start_has_no_caches_and_afterwards_all_are_there(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_time.carry_out(QWEN, 5, host.run) == load_time.DONE
    assert capsys.readouterr() == (load_time.table({"cold": PHASES, "warm": PHASES}) + "\n", "")
    assert host.at_start == [set(), {"compiled-1"}]
    assert {path.name for path in host.cache.iterdir()} == {"kept", "compiled-1", "compiled-2"}
    assert [path.name for path in host.cache.parent.iterdir()] == [host.cache.name]
    assert (host.root / "models/m/model.safetensors").stat().st_size == 4096
    assert f"docker start {QWEN}" in host.said[-1]


def test_an_instance_that_does_not_come_up_gets_its_caches_back(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.log = "2026-11-20T10:00:00Z stoker: engine ended with exit code 1, GPU lock released\n"
    assert load_time.carry_out(QWEN, 5, host.run) == load_time.FAILED
    assert f"docker logs --tail 500 {QWEN}" in capsys.readouterr().err
    assert {path.name for path in host.cache.iterdir()} == {"kept", "compiled-1"}


def test_what_the_last_time_has_left_aside_is_there_again(host: Host) -> None:
    aside = host.cache.with_name("GPU-a.aside")
    for folder, text in ((host.cache, "new"), (aside, "old")):
        (folder / "vllm").mkdir(parents=True)
        (folder / "vllm/graph").write_text(text)
    (aside / "vllm/other").touch()
    assert load_time.carry_out(QWEN, 5, host.run) == load_time.DONE
    assert host.at_start[0] == set()
    assert {path.name for path in (host.cache / "vllm").iterdir()} == {"graph", "other"}
    assert (host.cache / "vllm/graph").read_text() == "new"
    assert not aside.exists()


LOST = AccessError("the connection is closed", "see the host")


def _raising(error: BaseException, at: str, for_good: bool) -> Callable[[str], None]:
    """Raises before the first command that has the words, and with ``for_good`` before every later one."""
    begun: list[str] = []

    def before(command: str) -> None:
        if (begun and for_good) or (not begun and at in command):
            begun.append(command)
            raise error

    return before


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (LOST, load_time.FAILED, "the connection is closed; see the host"),
        (KeyboardInterrupt(), INTERRUPTED, f"Interrupted; {QWEN} gets its caches back"),
    ],
    ids=["connection lost", "Ctrl-C"],
)
def test_what_ends_a_measurement_leaves_nothing(
    host: Host, error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.before = _raising(error, "docker logs", for_good=False)
    assert load_time.carry_out(QWEN, 5, host.run) == status
    assert said in capsys.readouterr().err
    assert [path.name for path in host.cache.iterdir()] == ["kept"]
    assert f"docker start {QWEN}" in host.said[-1]


@pytest.mark.parametrize(
    ("error", "status", "first", "then"),
    [
        (LOST, load_time.FAILED, "the connection is closed; see the host", ": the connection is closed\n"),
        (KeyboardInterrupt(), INTERRUPTED, "Interrupted;", ": interrupted\n"),
    ],
    ids=["connection lost", "Ctrl-C"],
)
def test_what_is_left_is_said_with_the_commands_that_mend_it(
    host: Host,
    error: BaseException,
    status: int,
    first: str,
    then: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host.before = _raising(error, "docker logs", for_good=True)
    assert load_time.carry_out(QWEN, 5, host.run) == status
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert lines[0].startswith(first)
    assert f"{host.cache}.aside" in lines[1]
    assert lines[1].endswith(then)
    assert lines[-1].strip() == f"docker start {QWEN}"
    subprocess.run(["sh", "-c", lines[-2]], check=True)
    assert [path.name for path in host.cache.iterdir()] == ["kept"]


def test_a_measurement_whose_caches_are_not_back_is_not_done(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.before = _raising(LOST, "exit $back", for_good=True)
    assert load_time.carry_out(QWEN, 5, host.run) == load_time.FAILED
    out, err = capsys.readouterr()
    assert out.startswith("seconds"), "the figures are shown all the same"
    assert f"{host.cache}.aside" in err


def test_it_is_not_begun_while_another_start_has_the_card(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with host.lock.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert load_time.carry_out(QWEN, 5, host.run) == load_time.NOT_STARTED
    assert f"`cat {host.lock}`" in capsys.readouterr().err
    assert [command.split()[:2] for command in host.said[:1]] == [["docker", "inspect"]]
    assert len(host.said) == 2, "and the instance is neither stopped nor started"
    assert [path.name for path in host.cache.iterdir()] == ["kept"]
    assert not host.cache.with_name("GPU-a.aside").exists()


def test_nothing_is_put_back_under_another_start(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with host.lock.open() as lock:

        def before(command: str) -> None:
            if "exit $back" in command:
                fcntl.flock(lock, fcntl.LOCK_EX)

        host.before = before
        assert load_time.carry_out(QWEN, 5, host.run) == load_time.FAILED
    assert {path.name for path in host.cache.iterdir()} == {"compiled-1", "compiled-2"}
    err = capsys.readouterr().err
    assert "another start on the card has had its lock" in err
    assert f"flock {host.lock} sh -c" in err


def test_an_instance_that_may_have_the_lock_itself_is_stopped_before_its_caches_come_back(host: Host) -> None:
    host.before = _raising(LOST, "docker logs", for_good=False)
    assert load_time.carry_out(QWEN, 5, host.run) == load_time.FAILED
    assert host.said[-1].startswith(f"docker stop {QWEN}; ")


def test_a_container_of_an_earlier_version_is_told() -> None:
    with pytest.raises(load_time.NotMeasured, match="deploy it first"):
        load_time.places(QWEN, {"Args": ["--", "vllm"], "Mounts": []})


@pytest.mark.parametrize(("name", "found"), [(QWEN, 1), ("ollama_bge_0", 0), ("nobody", 0)])
def test_which_instance_is_meant(name: str, found: int) -> None:
    assert len(load_time.instances(make_fleet(), name)) == found

"""`stoker load-time`: what is put aside and back, which phases are read from the log, and what it says."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.fleet import make_fleet

from stoker.facts.paths import HOST_LOCKS
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
    assert load_time.phases(LOG) == PHASES


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
    #: What the card's cache holds at each start.
    at_start: list[set[str]] = field(default_factory=list)
    lost_at: bool = False  #: it cannot be reached when all is put right

    @property
    def cache(self) -> Path:
        return self.root / "cache/GPU-a"

    def run(self, command: str, seconds: float) -> str:
        self.said.append(command)
        words = command.split()
        if words[:2] == ["docker", "inspect"]:
            inspected = {
                "Args": ["--lock", "x", "--weights", "/model_data/m", "--", "vllm", "serve"],
                "Mounts": [
                    {"Source": str(self.root / "models"), "Destination": "/model_data"},
                    {"Source": str(self.cache), "Destination": "/var/cache/stoker"},
                ],
            }
            return json.dumps({"StartedAt": "2026-11-20T10:00:00Z"} if "-f" in words else [inspected])
        if words[:2] == ["docker", "logs"]:
            (self.cache / f"compiled-{len(self.at_start)}").touch()
            return self.log
        if command == f"docker start {QWEN}":
            self.at_start.append({path.name for path in self.cache.iterdir()})
        if self.lost_at and command.endswith(f"; docker start {QWEN}"):
            raise AccessError("no SSH connection", "see the network")
        local = (
            command.replace(HOST_LOCKS, str(self.root))
            .replace(f"docker stop {QWEN}", "true")
            .replace(f"docker start {QWEN}", "true")
        )
        return subprocess.run(["sh", "-c", local], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.cache.mkdir(parents=True)
    (made.cache / "kept").touch()
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/model.safetensors").write_bytes(bytes(4096))
    return made


def test_a_cold_start_has_no_caches_and_afterwards_all_are_there(host: Host) -> None:
    measured = load_time.measure(QWEN, 5, host.run)
    assert measured == {"cold": PHASES, "warm": PHASES}
    assert host.at_start == [set(), {"compiled-1"}]
    assert {path.name for path in host.cache.iterdir()} == {"kept", "compiled-1", "compiled-2"}
    assert [path.name for path in host.cache.parent.iterdir()] == [host.cache.name]
    assert (host.root / "models/m/model.safetensors").stat().st_size == 4096
    assert host.said[-1].endswith(f"docker start {QWEN}")


def test_an_instance_that_does_not_come_up_gets_its_caches_back(host: Host) -> None:
    host.log = "2026-11-20T10:00:00Z stoker: engine ended with exit code 1, GPU lock released\n"
    with pytest.raises(load_time.NotMeasured, match=f"docker logs --tail 500 {QWEN}"):
        load_time.measure(QWEN, 5, host.run)
    assert {path.name for path in host.cache.iterdir()} == {"kept", "compiled-1"}


def test_a_host_that_is_lost_does_not_hide_the_first_error_and_what_to_do_is_said(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.log, host.lost_at = "2026-11-20T10:00:00Z stoker: engine ended with exit code 1, GPU lock released\n", True
    with pytest.raises(load_time.NotMeasured, match="did not come up"):
        load_time.measure(QWEN, 5, host.run)
    said = capsys.readouterr().err
    assert f"{host.cache}.aside (no SSH connection)" in said
    assert f"docker start {QWEN}" in said
    subprocess.run(
        ["sh", "-c", said.splitlines()[-1].replace(HOST_LOCKS, str(host.root)).replace("docker", "echo")], check=True
    )
    assert (host.cache / "kept").exists()


def test_a_neighbour_that_loads_keeps_its_cache(host: Host) -> None:
    where = load_time.Places(str(host.root / "models/m"), str(host.cache), str(host.root / "x"), turn_seconds=0)
    with subprocess.Popen(["flock", where.lock, "sh", "-c", "echo; sleep 20"], stdout=subprocess.PIPE) as neighbour:
        assert neighbour.stdout
        neighbour.stdout.readline()
        done = subprocess.run(
            ["sh", "-c", load_time.without_caches(where)], capture_output=True, text=True, check=False
        )
        neighbour.kill()
    assert (done.returncode, (host.cache / "kept").exists()) == (75, True)
    assert "another engine of the card loads" in done.stderr


def test_a_log_without_its_beginning_is_no_measure() -> None:
    with pytest.raises(load_time.NotMeasured, match="lost its first lines"):
        load_time.phases("\n".join(LOG.splitlines()[3:]))


def test_a_container_of_an_earlier_version_is_told() -> None:
    with pytest.raises(load_time.NotMeasured, match="deploy it first"):
        load_time.places(QWEN, {"Args": ["--", "vllm"], "Mounts": []})


@pytest.mark.parametrize(("name", "found"), [(QWEN, 1), ("ollama_bge_0", 0), ("nobody", 0)])
def test_which_instance_is_meant(name: str, found: int) -> None:
    assert len(load_time.instances(make_fleet(), name)) == found

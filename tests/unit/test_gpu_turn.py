"""templates/gpu-turn.py as a real process: order on one GPU, signals, exit codes, process 1."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "templates" / "gpu-turn.py"
LIMIT = 20.0  # seconds, for anything that a test waits for
MODEL_BYTES = 16 << 20

# A pretend engine: notes when it begins and when it would answer, answers 200 after `load` seconds, ends by SIGTERM.
ENGINE = textwrap.dedent(
    """
    import http.server, os, signal, sys, threading, time
    name, port, load, journal = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    def note(what):
        with open(journal, "a") as out:
            out.write(f"{time.monotonic():.3f} {name} {what}\\n")
    signal.signal(signal.SIGTERM, lambda *_: (note("term"), os._exit(0)))
    note("begin")
    time.sleep(load)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()
        def log_message(self, *_): ...
    note("loaded")
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
    """
)


def until(condition: Callable[[], object], what: str) -> None:
    """Poll a condition with a limit."""
    limit = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"waited in vain for: {what}")
        time.sleep(0.02)


class Turns:
    """Starts gpu-turn.py processes and collects them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal = root / "journal"
        self.journal.touch()
        self.started: list[subprocess.Popen[bytes]] = []
        (root / "engine.py").write_text(ENGINE)

    def lock(self, name: str = "GPU-a.lock") -> str:
        path = self.root / name
        path.touch(mode=0o444)
        return str(path)

    def start(self, *arguments: str, log: str = "log", before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        with (self.root / log).open("ab") as out:
            one = subprocess.Popen(
                [*before, sys.executable, str(SCRIPT), *arguments],
                stdout=out,
                stderr=out,
                env={**os.environ, "STOKER_INSTANCE": f"of_{log}"},
            )
        self.started.append(one)
        return one

    def engine(self, name: str, port: int, load: float, *locks: str) -> subprocess.Popen[bytes]:
        named = [part for lock in locks or (self.lock(),) for part in ("--lock", lock)]
        command = [sys.executable, str(self.root / "engine.py"), name, str(port), str(load), str(self.journal)]
        return self.start(*named, "--health", f"http://127.0.0.1:{port}/health", "--", *command, log=f"log-{name}")

    def said(self, log: str = "log") -> str:
        return (self.root / log).read_text()

    def events(self) -> list[tuple[str, str]]:
        return [(parts[1], parts[2]) for parts in map(str.split, self.journal.read_text().splitlines())]

    def end(self) -> None:
        for one in self.started:
            if one.poll() is None:
                one.terminate()
        for one in self.started:
            try:
                one.wait(LIMIT)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    made = Turns(tmp_path)
    yield made
    made.end()


def ports(count: int) -> list[int]:
    import socket

    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    numbers = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return numbers


@pytest.mark.parametrize("count", [2, 4])
def test_simultaneous_starts_load_one_after_the_other(turns: Turns, count: int) -> None:
    lock = turns.lock()
    names = "abcd"[:count]
    for name, port in zip(names, ports(count), strict=True):
        turns.engine(name, port, 0.3, lock)
    until(lambda: len(turns.events()) == 2 * count, "all engines loaded")
    whats = turns.events()
    for begin, loaded in zip(whats[::2], whats[1::2], strict=True):
        assert begin == (loaded[0], "begin"), whats
        assert loaded[1] == "loaded", whats
    until(lambda: all("engine answers" in turns.said(f"log-{name}") for name in names), "all turns over")
    waited = sum("stoker: waiting for the GPU (lock GPU-a.lock)" in turns.said(f"log-{name}") for name in names)
    assert waited == count - 1
    for name in names:
        assert re.search(r"stoker: GPU lock taken after [\d.]+ s", turns.said(f"log-{name}"))


def test_engines_of_different_gpus_load_together(turns: Turns) -> None:
    first, second = ports(2)
    turns.engine("a", first, 1.0, turns.lock("GPU-a.lock"))
    turns.engine("b", second, 1.0, turns.lock("GPU-b.lock"))
    until(lambda: len(turns.events()) == 4, "both loaded")
    assert {what for _, what in turns.events()[:2]} == {"begin"}


@pytest.mark.parametrize("pairs", [("ab", "ba"), ("ab", "bc", "ca")], ids=["opposite", "in a circle"])
def test_engines_on_several_gpus_do_not_wait_for_each_other(turns: Turns, pairs: tuple[str, ...]) -> None:
    for name, port, pair in zip("xyz", ports(3), pairs, strict=False):
        turns.engine(name, port, 0.2, *(turns.lock(f"GPU-{gpu}.lock") for gpu in pair))
    until(lambda: len(turns.events()) == 2 * len(pairs), "all loaded")
    # Any two of them share a GPU.
    assert [name for name, _ in turns.events()][0::2] == [name for name, _ in turns.events()][1::2]


def test_a_killed_holder_frees_the_lock(turns: Turns) -> None:
    lock = turns.lock()
    holder = turns.start("--lock", lock, "--", "sleep", "1000")
    until(lambda: "lock taken" in turns.said(), "the lock is held")
    sleeper = child_of(holder.pid)
    (port,) = ports(1)
    turns.engine("next", port, 0.0, lock)
    until(lambda: "waiting for the GPU" in turns.said("log-next"), "the next waits")
    holder.kill()
    until(lambda: ("next", "begin") in turns.events(), "the next starts")
    # the engine had not inherited the lock: it still runs, and does not hold it
    assert Path(f"/proc/{sleeper}").exists()
    os.kill(sleeper, signal.SIGKILL)


def test_the_one_that_waits_says_who_has_the_turn(turns: Turns) -> None:
    lock = turns.lock()
    turns.start("--lock", lock, "--", "sleep", "1000", log="holder")
    until(lambda: "lock taken" in turns.said("holder"), "the lock is held")
    turns.start("--lock", lock, "--", "true", log="waiting")
    until(lambda: "waiting for the GPU" in turns.said("waiting"), "it waits")
    assert re.search(
        r"waiting for the GPU \(lock GPU-a\.lock\) for 0 s, held by of_holder for \d+ s$", turns.said("waiting"), re.M
    )


def child_of(pid: int) -> int:
    def children() -> list[str]:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    until(children, "a child")
    return int(children()[0])


def test_a_failed_engine_hands_on_its_turn_and_its_exit_code(turns: Turns) -> None:
    lock = turns.lock()
    failing = turns.start(
        "--lock", lock, "--health", "http://127.0.0.1:1/health", "--", "sh", "-c", "sleep 0.3; exit 3"
    )
    until(lambda: "lock taken" in turns.said(), "the lock is held")
    (port,) = ports(1)
    turns.engine("next", port, 0.0, lock)
    assert failing.wait(LIMIT) == 3
    assert "engine ended with exit code 3, GPU lock released" in turns.said()
    until(lambda: ("next", "loaded") in turns.events(), "the next loads")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -11 $$"], 139),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exit_codes(turns: Turns, command: list[str], code: int) -> None:
    assert turns.start("--lock", turns.lock(), "--", *command).wait(LIMIT) == code


def test_an_unhandled_sigterm_gives_143_and_a_handled_one_its_own_code(turns: Turns) -> None:
    plain = turns.start("--lock", turns.lock("1.lock"), "--", "sleep", "1000")
    own = turns.start(
        "--lock",
        turns.lock("2.lock"),
        "--",
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo trap set; while :; do sleep 0.05; done",
    )
    until(lambda: turns.said().count("lock taken") == 2 and "trap set" in turns.said(), "both run")
    child_of(plain.pid)
    plain.terminate()
    own.terminate()
    assert plain.wait(LIMIT) == 143
    assert own.wait(LIMIT) == 5


def test_signals_pass_to_the_engine(turns: Turns) -> None:
    script = 'for s in HUP USR1 USR2 INT QUIT; do trap "echo got-$s" $s; done; echo ready; while :; do sleep 0.05; done'
    one = turns.start("--lock", turns.lock(), "--", "sh", "-c", script)
    until(lambda: "ready" in turns.said(), "the traps are set")
    for name in ("HUP", "USR1", "USR2", "INT", "QUIT"):
        one.send_signal(getattr(signal, f"SIG{name}"))
        until(lambda name=name: f"got-{name}" in turns.said(), name)  # type: ignore[misc]
    assert one.poll() is None


def test_sigterm_while_waiting_ends_at_once_and_starts_nothing(turns: Turns) -> None:
    lock = turns.lock()
    turns.start("--lock", lock, "--", "sleep", "1000")
    until(lambda: "lock taken" in turns.said(), "the lock is held")
    waiting = turns.start("--lock", lock, "--", "touch", str(turns.root / "started"), log="waiting")
    until(lambda: "waiting for the GPU" in turns.said("waiting"), "it waits")
    begun = time.monotonic()
    waiting.terminate()
    assert waiting.wait(LIMIT) == 143
    assert time.monotonic() - begun < 2.0
    assert not (turns.root / "started").exists()
    assert "SIGTERM while waiting for the GPU" in turns.said("waiting")


def test_a_silent_engine_loses_its_turn_after_max_hold_and_runs_on(turns: Turns) -> None:
    lock = turns.lock()
    silent = turns.start(
        "--lock", lock, "--health", "http://127.0.0.1:1/health", "--max-hold", "0.5", "--", "sleep", "1000"
    )
    (port,) = ports(1)
    until(lambda: "lock taken" in turns.said(), "the lock is held")
    turns.engine("next", port, 0.0, lock)
    until(lambda: ("next", "loaded") in turns.events(), "the next loads")
    assert silent.poll() is None
    assert "does not answer after" in turns.said()


def test_a_missing_lock_is_named(turns: Turns) -> None:
    assert turns.start("--lock", str(turns.root / "none.lock"), "--", "true").wait(LIMIT) == 1
    assert re.search(r"stoker: cannot open the lock \S+none\.lock: No such file", turns.said())


def test_the_engine_gets_a_clean_signal_state_and_no_lock(turns: Turns) -> None:
    report = (
        "import os,signal;"
        "print('mask',sorted(signal.pthread_sigmask(signal.SIG_BLOCK,[])));"
        "print('fds',[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if int(n)>2 and os.path.exists(f'/proc/self/fd/{n}')])"
    )
    ignored = "grep -E 'SigIgn|SigBlk' /proc/self/status"
    assert turns.start("--lock", turns.lock(), "--", sys.executable, "-c", report).wait(LIMIT) == 0
    assert "mask []" in turns.said()
    assert "lock" not in turns.said().split("fds")[1].split("]")[0]
    assert turns.start("--lock", turns.lock(), "--", "sh", "-c", ignored, log="status").wait(LIMIT) == 0
    standard = (1 << 31) - 1  # beyond are the C library's own
    assert [int(one, 16) & standard for one in re.findall(r"Sig(?:Ign|Blk):\s+([0-9a-f]+)", turns.said("status"))] == [
        0,
        0,
    ]


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")


@as_root
def test_a_lock_that_can_only_be_read_is_a_lock(turns: Turns) -> None:
    """Containers of an earlier version have the directory mounted read-only, and start with this program all the same."""
    lock, root = turns.lock(), str(turns.root)
    mounted = f'mount --bind "{root}" "{root}" && mount -o remount,bind,ro "{root}" && exec "$@"'
    turns.start(
        "--lock", lock, "--", "sleep", "1000", log="holder", before=("unshare", "-m", "sh", "-c", mounted, "sh")
    )
    until(lambda: "lock taken" in turns.said("holder"), "the lock is held")
    turns.start("--lock", lock, "--", "true", log="waiting")
    until(lambda: "waiting for the GPU (lock GPU-a.lock) for 0 s\n" in turns.said("waiting"), "it waits")


@as_root
def test_as_process_1_it_reaps_orphans(turns: Turns) -> None:
    # twenty orphans that end at once, and a look at the process table of the namespace
    script = "for i in $(seq 20); do sh -c 'sleep 0 & exit' ; done; sleep 0.6; ps -eo pid,ppid,stat,comm"
    one = turns.start("--lock", turns.lock(), "--", "sh", "-c", script, before=("unshare", "-pf", "--mount-proc"))
    assert one.wait(LIMIT) == 0
    table = turns.said()
    assert re.search(r"^\s*1\s+0\s", table, re.MULTILINE)
    assert "defunct" not in table
    assert " Z" not in table


@as_root
def test_as_process_1_nothing_of_the_engine_is_left_when_the_lock_goes(turns: Turns) -> None:
    lock = turns.lock()
    # a worker that ignores SIGTERM and outlives the engine's main process, as an EngineCore can
    worker = "trap '' TERM; while :; do sleep 0.05; done"
    script = f'setsid sh -c "{worker}" & sleep 0.2; exit 4'
    one = turns.start("--lock", lock, "--", "sh", "-c", script, before=("unshare", "-pf", "--mount-proc"))
    assert one.wait(LIMIT) == 4
    assert "engine ended with exit code 4, GPU lock released" in turns.said()
    assert turns.start("--lock", lock, "--", "true", log="after").wait(LIMIT) == 0


@as_root
def test_as_process_1_sigterm_reaches_the_engine(turns: Turns) -> None:
    one = turns.start(
        "--lock",
        turns.lock(),
        "--",
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo set; while :; do sleep 0.05; done",
        before=("unshare", "-pf", "--mount-proc"),
    )
    until(lambda: "set" in turns.said(), "the engine runs")
    os.kill(child_of(one.pid), signal.SIGTERM)  # unshare's child is process 1 of the namespace
    assert one.wait(LIMIT) == 9


@pytest.fixture
def program() -> ModuleType:
    """gpu-turn.py as a module."""
    spec = importlib.util.spec_from_file_location("gpu_turn", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def models(program: ModuleType) -> Iterator[Path]:
    """Two models whose weights are on the disk and not in memory."""
    build = Path(__file__).parents[2] / "build"  # /tmp may itself be memory
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as made:
        for name in ("first", "second"):
            weights = Path(made, name, "model.safetensors")
            weights.parent.mkdir()
            weights.write_bytes(os.urandom(MODEL_BYTES))
            with weights.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert program.resident_bytes([str(weights)]) == 0
        yield Path(made)


def test_the_next_weights_are_read_once_the_holder_has_its_own(turns: Turns, models: Path, program: ModuleType) -> None:
    lock, weights = turns.lock(), [str(models / "second" / "model.safetensors")]
    load = f"sleep 1.5; echo holder reads; cat {models}/first/*.safetensors >/dev/null; exec sleep 1000"
    turns.start("--lock", lock, "--weights", str(models / "first"), "--", "sh", "-c", load)
    until(lambda: "lock taken" in turns.said(), "the lock is held")
    turns.start("--lock", lock, "--weights", str(models / "second"), "--", "true")
    until(lambda: "weights read ahead in" in turns.said(), "the weights are read")
    assert turns.said().index("holder reads") < turns.said().index("of weights ahead, while the holder compiles")
    assert program.resident_bytes(weights) == MODEL_BYTES


@pytest.mark.parametrize(
    ("holder", "own", "free", "said"),
    [
        ("first", "second", 1 << 40, "reading 0.0 GiB of weights ahead"),
        (
            "first",
            "second",
            4 << 30,
            "weights are not read ahead: that needs 4.0 GiB of free memory, and 4.0 GiB are free",
        ),
        ("first", "first", 1 << 40, ""),
        ("", "second", 1 << 40, ""),
        ("first", "none", 1 << 40, ""),
    ],
    ids=["another model", "no memory", "the same model", "a holder of an earlier version", "no weights"],
)
def test_what_is_read_ahead(
    holder: str,
    own: str,
    free: int,
    said: str,
    models: Path,
    program: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (models / "first" / "model.safetensors").read_bytes()
    monkeypatch.setattr(program, "available_bytes", lambda: free)
    (models / "lock").touch()
    held = program.Locks([str(models / "lock")], {"name": "x", "weights": str(models / holder) if holder else ""})
    assert held.take_next()
    ahead = program.ReadAhead(str(models / own))
    ahead.look(program.Locks([str(models / "lock")], {}))
    ahead.stop()
    assert capfd.readouterr().out.startswith(f"stoker: {said}" if said else "")
    assert bool(ahead.begun) == said.startswith("reading")


def test_reading_ahead_ends_when_the_turn_comes(
    models: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "read_quietly", lambda files: time.sleep(1000))
    (models / "first" / "model.safetensors").read_bytes()
    ahead = program.ReadAhead(str(models / "second"))
    ahead.decide([str(models / "first" / "model.safetensors")], program.Locks([], {}))
    reader = ahead.reader
    assert Path(f"/proc/{reader}").exists()
    ahead.stop()
    assert not Path(f"/proc/{reader}").exists()
    assert "weights read ahead in part" in capfd.readouterr().out


@pytest.mark.parametrize(("limit", "kept"), [(1000, ["compiled", "triton"]), (999, [])])
def test_a_cache_that_has_grown_too_large_is_emptied(
    limit: int, kept: list[str], tmp_path: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "CACHE_LIMIT_BYTES", limit)
    for name in ("compiled", "triton"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_bytes(bytes(500))
    program.bound(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == kept

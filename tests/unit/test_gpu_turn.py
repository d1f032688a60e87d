"""templates/gpu-turn.py as a real process: order on one GPU, signals, exit codes, process 1."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "templates" / "gpu-turn.py"
LIMIT = 20.0  # seconds, for anything that a test waits for

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
            one = subprocess.Popen([*before, sys.executable, str(SCRIPT), *arguments], stdout=out, stderr=out)
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


def test_two_gpus_each_in_opposite_order_do_not_wait_for_each_other(turns: Turns) -> None:
    a, b = turns.lock("GPU-a.lock"), turns.lock("GPU-b.lock")
    for (name, port), locks in zip(zip("xy", ports(2), strict=True), ((a, b), (b, a)), strict=True):
        turns.engine(name, port, 0.2, *locks)
    until(lambda: len(turns.events()) == 4, "both loaded")
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

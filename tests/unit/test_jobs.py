"""Scripts that take minutes: started detached by a real shell, watched, found again, never started twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.operations import jobs
from stoker.operations.jobs import poll_script, run_long, start_script
from stoker.ready.wait import ConnectionLost
from stoker.steps.action import Action

LIMIT = 20.0  # seconds, for anything that a test waits for


class LocalShell:
    """This machine in the place of a host. So many of the next looks at a job find the connection lost."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.break_next = 0

    def __call__(self, script: str, *, stdin: str | None = None) -> tuple[bool, list[str]]:
        self.scripts.append(script)
        if self.break_next and "kill -0" in script and "setsid" not in script:
            self.break_next -= 1
            if self.break_next % 2:
                raise ConnectionLost("no route to host")
            return False, []
        done = subprocess.run(
            ["/bin/sh", "-c", script], input=stdin or "", capture_output=True, text=True, timeout=LIMIT, check=False
        )
        return done.returncode == 0, (done.stdout + done.stderr).splitlines()


@pytest.fixture
def shell() -> LocalShell:
    return LocalShell()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where jobs live, below the test's directory; what still runs at the end is ended."""
    folder = tmp_path / "jobs"
    monkeypatch.setattr(jobs, "JOBS", str(folder))
    yield folder
    for file in folder.glob("*.pid"):
        if not file.with_suffix(".rc").exists():
            try:
                os.killpg(int(file.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                continue


def run(shell: LocalShell, script: str, said: list[str] | None = None) -> str | None:
    def say(text: str) -> None:
        if said is not None:
            said.append(text)

    return run_long(shell, say, Action("work", script, long=True), sleep=lambda seconds: time.sleep(0.01))


def wait_for(path: Path) -> None:
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def test_success(shell: LocalShell, tmp_path: Path) -> None:
    assert run(shell, f"echo done >{tmp_path}/result") is None
    assert (tmp_path / "result").read_text() == "done\n"


def test_failure_tells_status_and_the_end_of_the_log(shell: LocalShell) -> None:
    error = run(shell, "for i in $(seq 100); do echo line $i; done; echo 'E: not found' >&2; exit 100")
    assert error is not None
    lines = error.splitlines()
    assert lines[0] == "exit status 100"
    assert lines[-1] == "    | E: not found"
    assert lines[-2] == "    | line 100"
    assert len(lines) <= 31


def test_a_script_that_calls_exit_does_not_lose_its_status(shell: LocalShell) -> None:
    assert run(shell, "exit 0") is None
    assert (run(shell, "exit 42") or "").startswith("exit status 42")


def test_a_script_with_quotes_and_comments(shell: LocalShell, tmp_path: Path) -> None:
    script = f"""x='a "b"'; printf '%s' "$x $(echo '$HOME')" >{tmp_path}/out # the end"""
    assert run(shell, script) is None
    assert (tmp_path / "out").read_text() == 'a "b" $HOME'


def test_a_script_that_reads_its_input_gets_none(shell: LocalShell) -> None:
    assert run(shell, "read answer || exit 5") == "exit status 5\n"


def test_progress_is_told_now_and_then(shell: LocalShell, tmp_path: Path) -> None:
    """The last line, also of a progress bar that returns without a new line."""
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    ticks = iter(range(0, 100_000, 11))  # more than the time between two reports, at every look at the clock
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            fifo.write_text("go\n")

    action = Action("work", f"printf 'pulling 10 %%\\rpulling 50 %%'; read x <{fifo}; echo", long=True)
    error = run_long(shell, say, action, sleep=lambda seconds: time.sleep(0.01), clock=lambda: float(next(ticks)))
    assert error is None
    assert said == ["  ... pulling 50 %"]


def test_a_job_that_was_killed_is_called_lost(shell: LocalShell, tmp_path: Path, folder: Path) -> None:
    script = f"echo before; echo $PPID; touch {tmp_path}/started; exec sleep 60"
    answer = shell(start_script("name", script))
    assert answer == (True, ["started"])
    wait_for(tmp_path / "started")
    os.killpg(int((folder / "name.pid").read_text()), signal.SIGKILL)
    end = time.monotonic() + LIMIT
    while (lines := shell(poll_script("name"))[1])[0] == "job:running":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert lines[:2] == ["job:lost", "before"]


def test_a_job_that_is_lost_is_an_error(shell: LocalShell, folder: Path) -> None:
    error = run(shell, f"echo before; kill -9 $(cat {folder}/*.pid)")
    assert error == "it ended without an exit status (was the host rebooted?)\n    | before"


def test_a_lost_connection_does_not_end_the_wait(shell: LocalShell) -> None:
    shell.break_next = 3
    assert run(shell, "true") is None


def test_a_host_that_does_not_come_back_is_given_up(shell: LocalShell) -> None:
    shell.break_next = 1000
    error = run(shell, "true")
    assert error is not None
    assert error.startswith("the host cannot be reached any more")
    assert len(shell.scripts) < 100


def test_words_before_the_answer_are_not_taken_for_it(shell: LocalShell) -> None:
    def talkative(script: str, *, stdin: str | None = None) -> tuple[bool, list[str]]:
        ok, lines = shell(script, stdin=stdin)
        return ok, ["sudo: unable to resolve host gpu10", *lines]

    assert run_long(talkative, lambda text: None, Action("work", "exit 0", long=True)) is None
    error = run_long(talkative, lambda text: None, Action("work", "echo why; exit 3", long=True))
    assert error == "exit status 3\n    | why"


def test_a_second_run_finds_the_job_and_waits_for_it(shell: LocalShell, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    script = f"echo begun >>{tmp_path}/journal; touch {tmp_path}/started; read x <{fifo}; exit 3"
    first = re.findall(r"\w+", str(shell(start_script(name_of(script), script))))
    wait_for(tmp_path / "started")
    second = shell(start_script(name_of(script), script))
    assert (first, second) == (["True", "started"], (True, ["running"]))

    polls = len(shell.scripts)

    def sleep(seconds: float) -> None:
        if len(shell.scripts) == polls + 3:  # one start and two looks
            fifo.write_text("go\n")
        time.sleep(0.01)

    error = run_long(shell, lambda text: None, Action("work", script, long=True), sleep=sleep)
    assert error == "exit status 3\n"
    assert (tmp_path / "journal").read_text() == "begun\n"


def test_a_finished_job_is_started_again(shell: LocalShell, tmp_path: Path) -> None:
    script = f"echo begun >>{tmp_path}/journal; exit 1"
    assert run(shell, script) == "exit status 1\n"
    assert run(shell, script) == "exit status 1\n"
    assert (tmp_path / "journal").read_text() == "begun\nbegun\n"


def test_a_lost_job_is_started_again(shell: LocalShell, tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    script = f"touch {tmp_path}/done"
    dead = subprocess.Popen(["true"])
    dead.wait()
    (folder / f"{name_of(script)}.pid").write_text(f"{dead.pid}\n")
    assert run(shell, script) is None
    assert (tmp_path / "done").exists()


def test_two_scripts_are_two_jobs(shell: LocalShell, tmp_path: Path, folder: Path) -> None:
    assert run(shell, "true") is None
    assert run(shell, "true ") is None
    assert len(list(folder.glob("*.rc"))) == 2


def test_logs_are_private(shell: LocalShell, folder: Path) -> None:
    assert run(shell, "echo secret") is None
    assert {f"{file.stat().st_mode & 0o777:o}" for file in folder.iterdir()} == {"600"}
    assert f"{folder.stat().st_mode & 0o777:o}" == "700"


def test_scripts_have_an_ordinary_umask(shell: LocalShell, tmp_path: Path) -> None:
    assert run(shell, f"umask >{tmp_path}/umask") is None
    assert (tmp_path / "umask").read_text() == "0022\n"


def test_a_host_on_which_nothing_can_be_started(shell: LocalShell, folder: Path) -> None:
    folder.write_text("a file where the directory should be")
    error = run(shell, "true")
    assert error is not None
    assert error.startswith("could not be started: ")


def name_of(script: str) -> str:
    """The name that `run_long` gives a script, seen from the start that it makes."""
    seen: list[str] = []

    def shell(script: str, *, stdin: str | None = None) -> tuple[bool, list[str]]:
        seen.append(script)
        return True, ["job:0"]

    run_long(shell, lambda text: None, Action("work", script, long=True))
    found = re.search(r"/([0-9a-f]{16})\.pid", seen[0])
    assert found is not None
    return found[1]

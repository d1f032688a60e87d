"""This machine as a host (``@local``): commands, streams, terminals and Docker without SSH, and what is left of them: nothing."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker.errors
import pytest
from smoke_sshd import programs
from support.fleet import PROJECT

from stoker.doctor.look import Commands
from stoker.logs import remote
from stoker.logs.remote import Part
from stoker.operate.inside import attach
from stoker.smoke.local import LocalClient
from stoker.smoke.ssh import AccessError, Login, Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Shell]]:
    """Makes shells whose machine has the stand-ins for docker and sudo; ``environment`` is what they see."""
    programs(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    made: list[Shell] = []

    def make(sudo: bool = False, password: str | None = None, **environment: str) -> Shell:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        made.append(Shell(Login(lambda: LocalClient(sudo, password), (), sudo, password)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@contextmanager
def ends(folder: Path) -> Iterator[str]:
    """A command's beginning that notes its process; at the end of the block that process has to be gone."""
    noted = folder / "process"
    yield f"echo $$ >{noted}.new; mv {noted}.new {noted}; "
    process = int(noted.read_text())
    until = time.monotonic() + 10
    with suppress(ProcessLookupError):
        while time.monotonic() < until and _runs(process):
            threading.Event().wait(0.01)
        os.kill(process, signal.SIGKILL)
        assert not _runs(process), "it was left behind"


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


LOGINS = [
    pytest.param({}, {}, id="as it is"),
    pytest.param({"sudo": True}, {"NEEDS_ROOT": "1"}, id="sudo"),
    pytest.param(
        {"sudo": True, "password": "s3cret"}, {"NEEDS_ROOT": "1", "SUDO_PASSWORD": "s3cret"}, id="sudo with a password"
    ),
]


@pytest.mark.parametrize(("login", "environment"), LOGINS)
def test_docker(shell: Callable[..., Shell], login: dict[str, object], environment: dict[str, str]) -> None:
    made = shell(**login, **environment)
    assert made.run("docker version --format '{{.Server.Version}}'", sudo=True) == "28.5.2\n"
    client = made.docker()
    assert client.inspect_container("there")["State"] == {"Status": "running"}
    assert b"since=7" in client.logs("there", stdout=True, stderr=False, since=7)
    with pytest.raises(docker.errors.NotFound):
        client.inspect_container("gone")


def test_a_command_its_errors_and_its_exit_code(shell: Callable[..., Shell]) -> None:
    made = shell()
    assert made.run("echo one; echo two >&2") == "one\n"
    assert made.outcome("echo out; echo no >&2; exit 7", 5) == (7, "out\n", "no\n")
    assert made.outcome("kill -9 $$", 5)[0] == 137
    with pytest.raises(AccessError, match=r"false-command: exit code 127: .*not found"):
        made.run("false-command")


def test_input_of_any_length_and_more_output_than_a_pipe_holds(shell: Callable[..., Shell]) -> None:
    made, text = shell(), "word " * 100_000
    assert made.outcome("cat; head -c 300000 /dev/zero >&2", 5, text) == (0, text, "\0" * 300_000)
    assert made.outcome("exec <&-; sleep 0.1; echo unread", 5, text) == (0, "unread\n", "")
    assert made.run("cat") == ""


@pytest.mark.parametrize(("login", "environment"), LOGINS)
def test_a_time_limit_ends_the_whole_group(
    shell: Callable[..., Shell], tmp_path: Path, login: dict[str, object], environment: dict[str, str]
) -> None:
    made = shell(**login, **environment)
    with ends(tmp_path) as noting, pytest.raises(AccessError, match=r"no answer within 0.3 s"):
        made.run(f'sh -c \'(trap "" TERM; sh -c "{noting} exec sleep 60"; :); :\'', sudo=True, seconds=0.3)
    assert made.run("echo on") == "on\n"


def test_sudo_that_wants_a_password_nobody_gave(shell: Callable[..., Shell]) -> None:
    with pytest.raises(AccessError, match="password") as caught:
        shell(sudo=True, SUDO_PASSWORD="s3cret").run("true", sudo=True)
    assert "_sudo_password" in caught.value.remedy


def test_a_stream_goes_on_until_it_is_closed(shell: Callable[..., Shell], tmp_path: Path) -> None:
    with ends(tmp_path) as noting, shell().stream(f"{noting} while :; do echo x; sleep 0.02; done") as channel:
        assert [channel.recv(2) for _ in range(3)] == [b"x\n"] * 3


def test_a_stream_whose_shell_is_closed_by_another(shell: Callable[..., Shell], tmp_path: Path) -> None:
    made = shell()
    with ends(tmp_path) as noting, made.stream(f"{noting} echo x; exec sleep 60") as channel:
        assert channel.recv(2) == b"x\n"
        threading.Timer(0.1, made.close).start()
        assert (channel.recv(1), channel.recv_exit_status()) == (b"", -1)
    with pytest.raises(AccessError, match="closed"):
        made.run("true")


def test_what_follows_a_silent_log_ends_with_stoker(tmp_path: Path) -> None:
    """Killed, Stoker closes nothing itself."""
    docker_ = tmp_path / "docker"
    with ends(tmp_path) as noting:
        docker_.write_text(f"#!/bin/sh\n{noting} exec sleep 60\n")
        docker_.chmod(0o755)
        program = (
            "import sys, shlex; from stoker.smoke.local import LocalClient\n"
            "channel = LocalClient().open_session(timeout=1); channel.exec_command(sys.argv[1]); channel.recv(1)"
        )
        line = f"sh -c {shlex.quote(remote.follow('x', Part()))}"
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        stoker = os.posix_spawn(sys.executable, [sys.executable, "-c", program, line], environment)
        until = time.monotonic() + 20
        while not (tmp_path / "process").exists() and time.monotonic() < until:
            threading.Event().wait(0.01)
        os.kill(stoker, signal.SIGKILL)
        os.waitpid(stoker, 0)


def test_what_a_command_leaves_on_purpose_goes_on(shell: Callable[..., Shell], tmp_path: Path) -> None:
    left = tmp_path / "left"
    shell().run(f"(sleep 0.2; touch {left}) >/dev/null 2>&1 </dev/null &")
    until = time.monotonic() + 10
    while not left.exists() and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert left.exists()


def attached(
    made: Shell, folder: Path, command: str, stdin: bytes = b"", terminal: bool = False
) -> tuple[int, bytes, bytes]:
    """Exit status, output and errors."""
    (folder / "in").write_bytes(stdin)
    with (folder / "in").open("rb") as given, (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        size = os.terminal_size((80, 24)) if terminal else None
        with made.stream(command, sudo=True, size=size) as channel:
            status = attach(channel, given.fileno(), out.fileno(), err.fileno(), terminal)
    return status, (folder / "out").read_bytes(), (folder / "err").read_bytes()


@pytest.mark.parametrize(("login", "environment"), LOGINS)
def test_exec(
    shell: Callable[..., Shell], tmp_path: Path, login: dict[str, object], environment: dict[str, str]
) -> None:
    made, data = shell(**login, **environment), os.urandom(3_000_000)
    assert attached(made, tmp_path, "sh -c 'cat; echo err >&2; exit 7'", data) == (7, data, b"err\n")


@pytest.mark.parametrize(("login", "environment"), LOGINS)
def test_exec_on_a_terminal(
    shell: Callable[..., Shell], tmp_path: Path, login: dict[str, object], environment: dict[str, str]
) -> None:
    made = shell(**login, **environment)
    status, out, _ = attached(made, tmp_path, "sh -c 'stty size; echo $TERM >/dev/tty; exit 3'", terminal=True)
    assert (status, out.split()) == (3, [b"24", b"80", os.environ.get("TERM", "xterm").encode()])


def test_a_terminal_sends_its_signals(shell: Callable[..., Shell]) -> None:
    """Ctrl-C, a new size, and at last the hang-up reach the program."""
    command = "trap 'echo INT' INT; trap 'stty size' WINCH; echo begun; while :; do sleep 0.02; done"
    with shell().stream(command, size=os.terminal_size((80, 24))) as channel:
        channel.settimeout(10)
        _until(channel.recv, b"begun")
        channel.sendall(b"\x03")
        _until(channel.recv, b"INT")
        channel.resize_pty(100, 30)
        _until(channel.recv, b"30 100")


def _until(receive: Callable[[int], bytes], words: bytes) -> None:
    seen = b""
    while words not in seen:
        more = receive(100)
        assert more, seen
        seen += more


def test_what_is_printed_is_a_plain_command(shell: Callable[..., Shell]) -> None:
    assert shell().line("docker inspect 'a b'", sudo=True) == "docker inspect 'a b'"
    assert shell(sudo=True).line("docker inspect x", sudo=True) == "sudo docker inspect x"
    assert Commands("@local", (), sudo=True).there("cat", "a b") == "sudo cat 'a b'"


def test_the_inventory_says_which_host_is_this_machine(tmp_path: Path) -> None:
    """In a process of its own, patched for gevent as `stoker` is."""
    (tmp_path / "inventory.py").write_text(
        "a = [('@local', {'_sudo': True, '_sudo_password': 'x'})]\nb = ['192.168.31.10', '@docker/debian']\n"
    )
    program = """
import pyinfra_cli, sys
from pathlib import Path
from stoker.inventory import load_inventory
from stoker.smoke.ssh import Shell, logins
found = logins(load_inventory(Path("inventory.py")))
print(sorted(found), found["@local"].command, found["@local"].sudo, found["@local"].sudo_password)
shell = Shell(found["@local"])
print(shell.outcome("cat; exit 3", 5, "in"), end="")
"""
    programs(tmp_path)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == (
        "['192.168.31.10', '@local'] () True x\n(3, 'in', '')",
        0,
    ), done.stderr

"""`stoker exec`: streams and exit status of a program on a host, with and without a terminal, through sudo."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from smoke_sshd import connect, ssh_server
from support.fleet import PROJECT
from support.forked import Call, Result, call

from stoker.operate.inside import LOST, attach
from stoker.smoke.ssh import Login, Shell


def attached(
    folder: Path, command: str, stdin: bytes = b"", terminal: bool = False, **login: object
) -> tuple[int, bytes, bytes]:
    """Exit status, output and errors."""
    environment = {"SUDO_PASSWORD": str(login["sudo_password"])} if "sudo_password" in login else {}
    (folder / "in").write_bytes(stdin)
    with (
        ssh_server(folder, **environment) as port,
        (folder / "in").open("rb") as given,
        (folder / "out").open("wb") as out,
        (folder / "err").open("wb") as err,
    ):
        shell = Shell(Login(lambda: connect(port), ("ssh", "box"), **login))  # type: ignore[arg-type]
        size = os.terminal_size((80, 24)) if terminal else None
        with shell.stream(command, sudo=True, size=size) as channel:
            status = attach(channel, given.fileno(), out.fileno(), err.fileno(), terminal)
        shell.close()
    return status, (folder / "out").read_bytes(), (folder / "err").read_bytes()


def test_status_and_both_streams(tmp_path: Path) -> None:
    assert attached(tmp_path, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")


def test_more_than_fits_into_any_buffer_passes_both_ways(tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    assert attached(tmp_path, "cat", data) == (0, data, b"")


def test_a_password_for_sudo_does_not_reach_the_program(tmp_path: Path) -> None:
    found = attached(tmp_path, "sh -c 'echo $AS_ROOT; cat'", b"input", sudo=True, sudo_password="s3cret")
    assert found == (0, b"1\ninput", b"")


def test_a_terminal_never_shows_the_password(tmp_path: Path) -> None:
    command = "sh -c 'echo $AS_ROOT; stty -a | grep -ow -e -echo -e echo; exit 3'"
    status, out, _ = attached(tmp_path, command, terminal=True, sudo=True, sudo_password="s3cret")
    assert (status, out.split()) == (3, [b"1", b"echo"])


def test_a_program_that_ends_before_its_input_is_read(tmp_path: Path) -> None:
    """Its output and its status count, whatever it has left unread."""
    (tmp_path / "in").write_bytes(b"not wanted")
    with (
        ssh_server(tmp_path) as port,
        (tmp_path / "in").open("rb") as given,
        (tmp_path / "out").open("wb") as out,
        (tmp_path / "err").open("wb") as err,
    ):
        shell = Shell(Login(lambda: connect(port), ("ssh", "box")))
        with shell.stream("echo out; exit 7", size=os.terminal_size((80, 24))) as channel:
            until = time.monotonic() + 20
            while not channel.closed and time.monotonic() < until:
                time.sleep(0.01)
            assert attach(channel, given.fileno(), out.fileno(), err.fileno()) == 7
        shell.close()
    assert (tmp_path / "out").read_bytes().split() == [b"out"]
    assert (tmp_path / "err").read_bytes() == b""


def test_a_connection_that_is_lost(tmp_path: Path) -> None:
    silent, other = os.pipe()
    with ssh_server(tmp_path) as port, (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        client = connect(port)
        shell = Shell(Login(lambda: client, ("ssh", "box")))
        with shell.stream("echo begun; sleep 60") as channel:
            threading.Timer(0.3, client.close).start()
            assert attach(channel, silent, out.fileno(), err.fileno()) == LOST
    os.close(other)
    os.close(silent)
    assert (tmp_path / "out").read_bytes() == b"begun\n"
    assert b"the connection was lost" in (tmp_path / "err").read_bytes()


@pytest.mark.parametrize(("name", "words"), [("nonsense", "No host has nonsense"), ("-i", "No host has -i")])
def test_an_unknown_name(name: str, words: str, tmp_path: Path) -> None:
    said = tmp_path / "stderr"
    arguments = (Path("inventory.py"), (), name, ["true"])
    assert call(Call("stoker.operate.inside", "execute", arguments, cwd=PROJECT, stderr=said)) == Result(0, 3)
    assert words in said.read_text()

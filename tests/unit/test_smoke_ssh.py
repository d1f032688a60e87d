"""Commands and the Docker SDK over a real SSH connection, as root, by sudo, and by sudo with a password."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import docker.errors
import paramiko
import pytest
from smoke_sshd import connect, ssh_server

from stoker.smoke.ssh import AccessError, Login, Shell

COMMAND = ("ssh", "-p", "2222", "operator@box")


@contextmanager
def shell(folder: Path, sudo: bool = False, password: str | None = None, **environment: str) -> Iterator[Shell]:
    with ssh_server(folder, **environment) as port:
        made = Shell(Login(lambda: connect(port), COMMAND, sudo, password))
        try:
            yield made
        finally:
            made.close()


CASES = [
    pytest.param({}, {}, id="root"),
    pytest.param({"sudo": True}, {"NEEDS_ROOT": "1"}, id="sudo"),
    pytest.param(
        {"sudo": True, "password": "s3cret"}, {"NEEDS_ROOT": "1", "SUDO_PASSWORD": "s3cret"}, id="sudo with a password"
    ),
]


@pytest.mark.parametrize(("login", "environment"), CASES)
def test_docker(tmp_path: Path, login: dict[str, object], environment: dict[str, str]) -> None:
    with shell(tmp_path, **login, **environment) as made:  # type: ignore[arg-type]
        assert made.run("docker version --format '{{.Server.Version}}'", sudo=True) == "28.5.2\n"
        client = made.docker()
        assert client.api_version == "1.51"
        assert client.inspect_container("there")["State"] == {"Status": "running"}
        assert b"since=7" in client.logs("there", stdout=True, stderr=False, since=7)
        with pytest.raises(docker.errors.NotFound):
            client.inspect_container("gone")
        assert made.docker() is client


def test_commands(tmp_path: Path) -> None:
    with shell(tmp_path) as made:
        assert made.run("echo one; echo two >&2") == "one\n"
        with pytest.raises(AccessError, match=r"false-command: exit code 127: .*not found"):
            made.run("false-command")
        assert made.line("docker inspect x", sudo=True) == "ssh -p 2222 operator@box 'docker inspect x'"


def test_a_script_of_pages_is_named_by_its_beginning(tmp_path: Path) -> None:
    with shell(tmp_path) as made, pytest.raises(AccessError) as caught:
        made.run("sh -c 'first line\n" + "echo x\n" * 500 + "'; exit 3")
    assert caught.value.reason.startswith("sh -c 'first line…: exit code 3")
    assert len(caught.value.reason) < 600


def test_a_command_that_reads_and_fails_is_told_in_full(tmp_path: Path) -> None:
    text = "word " * 20_000
    with shell(tmp_path) as made:
        assert made.outcome("wc -c; echo no >&2; exit 7", 5, text) == (7, f"{len(text)}\n", "no\n")


def test_many_at_once_stay_below_what_sshd_allows(tmp_path: Path) -> None:
    with shell(tmp_path) as made, ThreadPoolExecutor(40) as pool:
        commands = [pool.submit(made.run, "sleep 0.05; echo x") for _ in range(20)]
        inspections = [pool.submit(lambda: made.docker().inspect_container("there")) for _ in range(20)]
        assert {future.result() for future in commands} == {"x\n"}
        assert all(future.result()["Id"] == "1" for future in inspections)


def test_a_user_without_the_right(tmp_path: Path) -> None:
    with shell(tmp_path, NEEDS_ROOT="1") as made:
        with pytest.raises(AccessError, match="permission denied"):
            made.run("docker version --format '{{.Server.Version}}'", sudo=True)
        with pytest.raises(AccessError, match="does not answer"):
            made.docker()


def test_sudo_that_wants_a_password_nobody_gave(tmp_path: Path) -> None:
    with shell(tmp_path, sudo=True, SUDO_PASSWORD="s3cret") as made:
        with pytest.raises(AccessError, match="password") as caught:
            made.run("true", sudo=True)
        assert "_sudo_password" in caught.value.remedy


def test_the_printed_line_uses_sudo_and_never_the_password(tmp_path: Path) -> None:
    with shell(tmp_path, sudo=True, password="s3cret", SUDO_PASSWORD="s3cret") as made:
        assert made.line("docker inspect x", sudo=True) == "ssh -p 2222 operator@box 'sudo docker inspect x'"
        assert "s3cret" not in repr(made.__dict__["_login"])


def test_a_failed_connection_is_tried_once() -> None:
    tries = []

    def refused() -> paramiko.SSHClient:
        tries.append(1)
        raise ConnectionRefusedError("refused")

    made = Shell(Login(refused, COMMAND))
    for _ in range(2):
        with pytest.raises(AccessError, match="no SSH connection: refused"):
            made.run("true")
    assert tries == [1]


def test_a_changed_host_key_names_the_command_that_accepts_it() -> None:
    def changed() -> paramiko.SSHClient:
        raise paramiko.SSHException("SSH host key error (Host key for box does not match.)")

    with pytest.raises(AccessError) as caught:
        Shell(Login(changed, ("ssh", "box"))).run("true")
    assert "ssh-keygen -R box" in caught.value.remedy

"""An SSH server on 127.0.0.1 whose host has a stand-in for ``docker`` and one for ``sudo``. Simulated; the SSH is real (paramiko's)."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import paramiko
from paramiko.common import AUTH_SUCCESSFUL, OPEN_FAILED_CONNECT_FAILED, OPEN_SUCCEEDED

#: Speaks HTTP on its standard streams, as `docker system dial-stdio` does.
_DOCKER = """#!{python}
import json, os, sys
if sys.argv[1:] == ["version", "--format", "{{{{.Server.Version}}}}"]:
    if os.environ.get("AS_ROOT") or not os.environ.get("NEEDS_ROOT"):
        print("28.5.2"); sys.exit(0)
    print("permission denied while trying to connect to the docker API", file=sys.stderr); sys.exit(1)
assert sys.argv[1:] == ["system", "dial-stdio"], sys.argv
if os.environ.get("NEEDS_ROOT") and not os.environ.get("AS_ROOT"):
    print("permission denied", file=sys.stderr); sys.exit(1)
while line := sys.stdin.buffer.readline():
    method, path, _ = line.decode().split()
    while sys.stdin.buffer.readline() not in (b"\\r\\n", b""):
        pass
    kind, status = "application/json", 200
    if path == "/version":
        body = json.dumps({{"ApiVersion": "1.51", "Version": "28.5.2"}}).encode()
    elif path.endswith("/containers/there/json"):
        body = json.dumps({{"Id": "1", "Config": {{"Tty": False}}, "State": {{"Status": "running"}}}}).encode()
    elif "/containers/there/logs" in path:
        kind, line = "application/vnd.docker.raw-stream", path.encode() + b"\\n"
        body = b"\\x01\\x00\\x00\\x00" + len(line).to_bytes(4, "big") + line
    else:
        status, body = 404, json.dumps({{"message": "No such container"}}).encode()
    head = f"HTTP/1.1 {{status}} X\\r\\nContent-Type: {{kind}}\\r\\nContent-Length: {{len(body)}}\\r\\n\\r\\n"
    sys.stdout.buffer.write(head.encode() + body)
    sys.stdout.buffer.flush()
"""

_SUDO = """#!/bin/sh
if [ "$1" = -n ]; then
    [ -z "$SUDO_PASSWORD" ] || {{ echo 'sudo: a password is required' >&2; exit 1; }}
    shift
elif [ "$1 $2 $3 $4" = '-k -S -p ' ]; then
    read -r given
    [ "$given" = "$SUDO_PASSWORD" ] || {{ echo 'sudo: 1 incorrect password attempt' >&2; exit 1; }}
    shift 4
fi
AS_ROOT=1 exec "$@"
"""


#: sshd's default.
_MAX_SESSIONS = 10


class _Server(paramiko.ServerInterface):
    """One connection."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._channels: list[paramiko.Channel] = []
        self._terminals: list[paramiko.Channel] = []
        self._asked = 0
        self._lock = threading.Lock()

    def check_auth_password(self, username: str, password: str) -> int:
        return AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        with self._lock:
            open_now = self._asked - sum(channel.closed for channel in self._channels)
            if open_now >= _MAX_SESSIONS:
                return OPEN_FAILED_CONNECT_FAILED  # as OpenSSH does
            self._asked += 1
        return OPEN_SUCCEEDED

    def check_channel_pty_request(self, channel: paramiko.Channel, *_: object) -> bool:
        self._terminals.append(channel)
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        with self._lock:
            self._channels.append(channel)
        run = _execute_on_terminal if channel in self._terminals else _execute
        threading.Thread(target=run, args=(channel, command.decode(), self._environment), daemon=True).start()
        return True


def programs(folder: Path) -> None:
    """Write the stand-ins for docker and sudo."""
    for name, text in (("docker", _DOCKER), ("sudo", _SUDO)):
        path = folder / name
        path.write_text(text.format(python=sys.executable), encoding="utf-8")
        path.chmod(0o755)


@contextmanager
def ssh_server(folder: Path, **environment: str) -> Iterator[int]:
    """Port of the server. ``environment`` is what its commands see: SUDO_PASSWORD, NEEDS_ROOT."""
    programs(folder)
    values = {**environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    key = paramiko.ECDSAKey.generate()
    transports: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transports.append(transport)
                transport.add_server_key(key)
                with suppress(EOFError, paramiko.SSHException):  # a client that left before the key exchange
                    transport.start_server(server=_Server(values))

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for transport in transports:
                transport.close()


def connect(port: int) -> paramiko.SSHClient:
    """A client that trusts the server."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        "127.0.0.1", port, username="operator", timeout=5, allow_agent=False, look_for_keys=False, password=""
    )
    return client


def _execute(channel: paramiko.Channel, command: str, environment: Mapping[str, str]) -> None:
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr

    def feed() -> None:
        with suppress(OSError):  # the program has ended, and did not want all of it
            while data := channel.recv(65536):
                stdin.write(data)
            stdin.close()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    while data := stdout.read(65536):
        channel.sendall(data)
    channel.sendall_stderr(stderr.read())
    channel.send_exit_status(process.wait())
    channel.shutdown_write()
    # A client that has said that it sends no more has had the reply to its request; a channel that is closed before is an error to it.
    feeder.join(timeout=5)
    channel.close()


def _execute_on_terminal(channel: paramiko.Channel, command: str, environment: Mapping[str, str]) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=dict(environment),
        start_new_session=True,
    )
    os.close(theirs)

    def feed() -> None:
        while data := channel.recv(65536):
            os.write(ours, data)

    threading.Thread(target=feed, daemon=True).start()
    with suppress(OSError):  # the end of a terminal
        while data := os.read(ours, 65536):
            channel.sendall(data)
    channel.send_exit_status(process.wait())
    channel.close()
    os.close(ours)

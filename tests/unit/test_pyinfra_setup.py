"""What is put right in paramiko: a host that is slow to greet is waited for, and one that never does is named for what it is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pytest
from smoke_sshd import ssh_server

from stoker.run import pyinfra_setup
from stoker.run.pyinfra_setup import set_up

SHORT = 0.2  # seconds that a connection may take; the greeting takes longer


@contextmanager
def held_back(port: int, seconds: float) -> Iterator[int]:
    """The port of a relay to the server that passes the server's first bytes on after some time."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(("127.0.0.1", port)) as server:

        def relay() -> None:
            client, _ = listener.accept()
            with client:
                threading.Thread(target=_pump, args=(client, server), daemon=True).start()
                ended.wait(seconds)
                _pump(server, client)

        ended = threading.Event()
        relaying = threading.Thread(target=relay, daemon=True)
        relaying.start()
        yield listener.getsockname()[1]
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        relaying.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        return


def connect(port: int) -> None:
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1", port, "operator", "", timeout=SHORT, auth_timeout=10, allow_agent=False, look_for_keys=False
        )


def test_a_host_that_is_slow_to_greet_is_waited_for(tmp_path: Path) -> None:
    set_up()
    with ssh_server(tmp_path) as server, held_back(server, 5 * SHORT) as port:
        connect(port)


def test_a_host_that_never_greets_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up()
    monkeypatch.setattr(pyinfra_setup, "HANDSHAKE_SECONDS", 2 * SHORT)
    with (
        ssh_server(tmp_path) as server,
        held_back(server, 60) as port,
        pytest.raises(paramiko.SSHException, match=r"took the connection but no key exchange was done within 0\.4 s"),
    ):
        connect(port)

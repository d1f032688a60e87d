"""What has to be put right in pyinfra 3.10 and paramiko before the first connection."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import paramiko
import pyinfra

_SUPPORTED = "3.10."

#: No delay, and an end for a connection whose other side is gone without a word: after about a minute (seconds, counts; the
#: last in milliseconds). pyinfra has no time limit of its own for a command.
_SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)

#: Seconds for a host that has taken the connection to finish the key exchange; its processors may be busy with an engine that loads.
HANDSHAKE_SECONDS = 20.0


class UnsupportedPyinfra(Exception):
    """Another pyinfra than the one whose behaviour this code relies on."""


def set_up() -> None:
    """Check the version, send small packets at once, and make sure that a host key can be noted."""
    if not pyinfra.__version__.startswith(_SUPPORTED):
        raise UnsupportedPyinfra(
            f"Stoker needs pyinfra {_SUPPORTED}x and found {pyinfra.__version__}; install the locked versions: make env"
        )
    # Its spinner and our live view would write over each other.
    os.environ["PYINFRA_PROGRESS"] = "off"
    _no_delay()
    _patient_handshake()
    # Without the directory every connection fails with "[Errno 2] ... known_hosts" (pyinfra 3.10).
    (Path.home() / ".ssh").mkdir(mode=0o700, exist_ok=True)
    # paramiko's thread prints two pages for a port that does not speak SSH; the error itself is reported by pyinfra.
    logging.getLogger("paramiko.transport").setLevel(logging.CRITICAL)


def _no_delay() -> None:
    """Switch Nagle's algorithm off on paramiko's sockets, and notice a dead peer.

    Each command ends with one small packet and the next begins with another; Nagle holds the second back until the
    delayed acknowledgement of the first, some 40 ms for every command.
    """
    transport: Any = paramiko.Transport
    if getattr(transport, "_stoker_no_delay", False):
        return
    original = transport.__init__

    def init(self: Any, sock: Any, *arguments: Any, **keywords: Any) -> None:
        original(self, sock, *arguments, **keywords)
        if isinstance(self.sock, socket.socket):  # a jump host's channel is none
            for level, option, value in _SOCKET_OPTIONS:
                self.sock.setsockopt(level, option, value)

    transport.__init__ = init
    transport._stoker_no_delay = True


def _patient_handshake() -> None:
    """Give the key exchange a time of its own, and say so when it runs out.

    paramiko 4.0 uses one limit for the connection and for the key exchange. An address where nothing answers should be known
    in seconds; a host that has answered and is slow should be waited for. And at the limit paramiko goes on as if it were
    done and fails with "No existing session".
    """
    transport: Any = paramiko.Transport
    if getattr(transport, "_stoker_patient", False):
        return
    original = transport.start_client

    def start_client(self: Any, event: Any = None, timeout: float | None = None) -> None:
        limit = None if timeout is None else max(timeout, HANDSHAKE_SECONDS)
        original(self, event, limit)
        if event is None and not self.initial_kex_done:
            raise paramiko.SSHException(f"the host took the connection but no key exchange was done within {limit:g} s")

    transport.start_client = start_client
    transport._stoker_patient = True

"""Machines as network namespaces of the real kernel, and programs in them. Needs root."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

#: Accepts connections at every port given, over IPv4 and IPv6, and says so when it listens.
_LISTEN = """
import socket, sys, threading
def serve(port):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    def loop():
        while True:
            server.accept()[0].sendall(b"hello")
    threading.Thread(target=loop).start()
for port in sys.argv[1:]:
    serve(int(port))
print("ready", flush=True)
"""

#: What comes of a connection: ``open``, ``refused``, or ``silent`` when nothing comes back for a second.
_CONNECT = """
import socket, sys
address, port, source = sys.argv[1:]
try:
    with socket.create_connection((address, int(port)), 1, (source, 0) if source else None) as one:
        print("open" if one.recv(5) == b"hello" else "cut")
except ConnectionError:
    print("refused")
except TimeoutError:
    print("silent")
"""


@dataclass(frozen=True)
class Namespace:
    """One machine, alive as long as the process ``pid`` that holds it."""

    pid: int

    def argv(self, *words: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", *words]

    def sh(self, script: str) -> str:
        done = subprocess.run(self.argv("sh", "-ec", script), capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            pytest.fail(f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def listen(self, stack: ExitStack, *ports: int) -> None:
        """Answer at these ports until the stack is closed."""
        words = self.argv(sys.executable, "-c", _LISTEN, *map(str, ports))
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        stack.callback(lambda: (server.kill(), server.communicate()))
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def connect(self, address: str, port: int, source: str = "") -> str:
        words = self.argv(sys.executable, "-c", _CONNECT, address, str(port), source)
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def namespace(stack: ExitStack) -> Namespace:
    """A new machine with loopback up; gone when the stack is closed."""
    # It says a word when it is in its namespace. An address that is looked for first (accept_dad) is of no use for a second.
    holder = subprocess.Popen(
        [
            "unshare",
            "-n",
            "sh",
            "-c",
            "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; ip link set lo up && echo up && exec sleep 600",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(lambda: (holder.kill(), holder.communicate()))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n", "network namespaces need root"
    return Namespace(holder.pid)


def cable(one: Namespace, name: str, other: Namespace, other_name: str) -> None:
    """A cable between two machines."""
    one.sh(f"ip link add {name} type veth peer name {other_name} netns {other.pid}; ip link set {name} up")
    other.sh(f"ip link set {other_name} up")

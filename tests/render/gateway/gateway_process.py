"""A gateway for tests: the files that stoker renders, in a real nginx, in front of members on 127.0.0.1."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway_members import Member
from nginx_binary import nginx_command, state_directory

from stoker.render import gateway as rendered
from stoker.render import gateway_external
from stoker.render.gateway import CONFIG_DIRECTORY, INSIDE_ADDRESS, Backend, render_gateway
from stoker.spec.gateway import Gateway, Pool

T = TypeVar("T")
#: Trusts every certificate: who speaks is known here.
_ANY = ssl._create_unverified_context()
PATIENCE = 10.0  # seconds; a limit for what takes milliseconds


@dataclass
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, str]:
        """The error object; fails when the answer is not an error as OpenAI's clients read it."""
        assert self.headers["content-type"] == "application/json", self
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert error["type"] == ("invalid_request_error" if self.status < 500 else "server_error")
        return dict(error)


def read_reply(connection: socket.socket) -> Reply:
    """The next answer on a connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return _reply(response)


def _reply(response: http.client.HTTPResponse) -> Reply:
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def pool_of(reply: Reply) -> str:
    """The pool whose member answered, by the member's name."""
    return str(reply.json["member"]).split("_")[0]


@dataclass
class RunningGateway:
    """A gateway that answers on 127.0.0.1."""

    port: int
    identity: str
    process: subprocess.Popen[bytes]
    log_file: Path
    #: Its own port speaks HTTPS.
    secure: bool = False

    def ask(
        self,
        path: str,
        body: object = None,
        *,
        method: str = "",
        raw: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        source: str = "127.0.0.1",
    ) -> Reply:
        """POST when there is a body, else GET. ``raw`` sends bytes as they are, an iterable of them chunked.

        ``source`` is the client's address, any of 127.0.0.0/8.
        """
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, source_address=(source, 0), context=_ANY)
            if self.secure
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=60, source_address=(source, 0))
        )
        with contextlib.closing(connection):
            connection.request(
                method or ("GET" if data is None else "POST"),
                path,
                data,
                {"Content-Type": "application/json", **(headers or {})},
            )
            return _reply(connection.getresponse())

    def inside(self, path: str) -> Reply:
        """What the gateway shows only to whoever is inside its container."""
        connection = http.client.HTTPConnection(INSIDE_ADDRESS, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return _reply(connection.getresponse())

    def member(self, name: str) -> dict[str, Any]:
        """What the gateway knows of one member."""
        return next(dict(one) for one in self.inside("/members").json["members"] if one["name"] == name)

    def drain(self, *names: str) -> None:
        """As the host does it: the whole list of drained members, put in place by a rename."""
        directory = state_directory(self.log_file.with_suffix(""))
        (directory / "new").write_text("".join(f"{name}\n" for name in names))
        (directory / "new").rename(directory / "drained")

    def send(self, request: bytes, source: str = "127.0.0.1") -> Reply:
        """Bytes as they are, for what an HTTP library refuses to send. The answer must come with a status line."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE, (source, 0)) as connection:
            connection.sendall(request)
            return read_reply(connection)

    def open(self, path: str, body: object) -> socket.socket:
        """A connection on which a request was sent; its answer is for the caller to read."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        return connection

    def log(self, path: str) -> dict[str, Any]:
        """The newest line of the access log for a path."""

        def newest() -> dict[str, Any] | None:
            entries = [entry for entry in map(json.loads, self.logged()) if entry["path"] == path]
            return entries[-1] if entries else None

        return until(newest)

    def entries(self, path: str, count: int) -> list[dict[str, Any]]:
        """All lines of the access log for a path, once there are so many."""

        def found() -> list[dict[str, Any]] | None:
            entries = [entry for entry in map(json.loads, self.logged()) if entry["path"] == path]
            return entries if len(entries) >= count else None

        return until(found)

    def logged(self) -> list[str]:
        """The lines of the access log, which are always text."""
        return [line.decode("ascii") for line in self.log_file.read_bytes().splitlines() if line.startswith(b"{")]

    def log_of(self, reply: Reply) -> dict[str, Any]:
        """The line of the access log for the request that got this answer."""

        def line() -> dict[str, Any] | None:
            return next(
                (entry for entry in map(json.loads, self.logged()) if entry["id"] == reply.headers["x-request-id"]),
                None,
            )

        return until(line)

    def output(self) -> str:
        """Both logs. nginx writes what it refused into its own as it came."""
        return self.log_file.read_text(errors="replace")

    def memory(self) -> int:
        """Bytes of private memory that nginx's worker processes have in use (VmRSS less what is shared)."""
        return sum(_private_memory(worker) for worker in self.workers())

    def temporary_files(self) -> list[str]:
        """Bodies that memory was too small for: files that nginx's workers hold open."""
        links = [link for worker in self.workers() for link in Path(f"/proc/{worker}/fd").iterdir()]
        targets = [os.readlink(link) for link in links if link.is_symlink()]
        return [target for target in targets if "/stoker-client-body/" in target]

    def until_temporary_files(self) -> list[str]:
        return until(self.temporary_files)

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in children.read_text().split()]


class Start(Protocol):
    """Starts a gateway in front of members, with other limits than the default."""

    def __call__(self, members: list[Member], **limits: int) -> RunningGateway: ...


class StartProtected(Protocol):
    """Starts the unified gateway with other fields than group_data's."""

    def __call__(self, **fields: Any) -> RunningGateway: ...


def until(condition: Callable[[], T | None]) -> T:
    """The first true value of a condition. Fails after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, f"not true within {PATIENCE} s: {condition}"
        time.sleep(0.01)
    return value


def backends_of(gateway: Gateway, members: Iterable[Member]) -> list[Backend]:
    members = list(members)
    return [
        gateway_external.backend(pool, pool.external)
        if pool.external
        else _backend(pool, [member for member in members if member.model == pool.model])
        for pool in gateway.pools
    ]


def _backend(pool: Pool, members: list[Member]) -> Backend:
    rendered_members = tuple(rendered.Member(member.name, member.address) for member in members)
    return Backend(pool, members[0].engine, rendered_members, members[0].aliases)


@contextlib.contextmanager
def running_gateway(
    gateway: Gateway, members: Iterable[Member], directory: Path, addresses: Sequence[str] = ()
) -> Iterator[RunningGateway]:
    """The gateway with a free port in place of its own, ready to answer.

    With IPv6 ``addresses`` it runs in a network namespace of its own that has them; only a process in there can ask it.
    """
    gateway = gateway.model_copy(update={"port": free_port()})
    files = render_gateway(gateway, backends_of(gateway, members))
    directory.mkdir(parents=True, exist_ok=True)
    state_directory(directory).mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    log_file = directory.with_suffix(".log")
    command = nginx_command(directory, "-c", f"{CONFIG_DIRECTORY}/{gateway.config_file}", "-g", "daemon off;")
    if addresses:
        make = "".join(f"ip -6 address add {address}/128 dev lo; " for address in addresses)
        command = [
            "unshare",
            "--net",
            "/bin/sh",
            "-ec",
            f'ip link set lo up; {make}exec "$@"',
            "in-own-network",
            *command,
        ]
    with log_file.open("ab") as log:  # like nginx itself, which opens /dev/stdout once more
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        running = RunningGateway(gateway.port, "", process, log_file, secure=not gateway.plain_port)
        running.identity = until(lambda: _listens_on_ipv6(running) if addresses else _health(running))
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def _listens_on_ipv6(gateway: RunningGateway) -> str:
    """Looked at from outside of its network namespace."""
    assert gateway.process.poll() is None, f"nginx ended: {gateway.output()}"
    sockets = Path(f"/proc/{gateway.process.pid}/net/tcp6").read_text()
    return "unasked" if f"{0:032X}:{gateway.port:04X} " in sockets else ""


def _private_memory(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return sizes["RssAnon"]


def _health(gateway: RunningGateway) -> str | None:
    assert gateway.process.poll() is None, f"nginx ended: {gateway.output()}"
    with contextlib.suppress(ConnectionError):
        return gateway.ask("/health").headers.get("x-stoker-config")
    return None


def free_port() -> int:
    """A port below those that connections are made from (32768 on, by Linux's default): nobody takes it before nginx does."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", random.randrange(20000, 32768))) as free:
            return int(free.getsockname()[1])

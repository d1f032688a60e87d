"""A shell and a Docker client on a host, over one SSH connection with the inventory's own settings, or on this machine itself.

The connection is made by pyinfra's connector, so that user, port, key, known_hosts, ssh_config and jump hosts mean the same
here as in a deploy. Of a host that the inventory calls ``@local`` this machine is the host (:mod:`stoker.smoke.local`).
"""

from __future__ import annotations

import os
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import paramiko

from stoker.smoke.connection import Channel, Client
from stoker.smoke.curl import CONNECT_SECONDS
from stoker.smoke.local import LocalClient

if TYPE_CHECKING:  # the SDK is needed by the smoke test alone, and takes longer to import than a look at a host
    import docker

    from stoker.smoke.docker_there import DockerThere

#: Seconds for one command or one request to Docker. `docker exec` on a busy host takes a second or two.
COMMAND_SECONDS = 15
#: Requests to Docker at once, each on a channel of its own; others wait.
CHANNELS = 3
#: Commands at once. sshd allows 10 sessions on a connection (MaxSessions), and the Docker client has some of them.
_SESSIONS = 9 - CHANNELS

_PART_BYTES = 64 * 1024


#: Of a host that has no login, and what to do.
UNREACHED, REACH_IT = "the inventory reaches it neither by SSH nor as @local", "give its address in the inventory"


class AccessError(Exception):
    """The host, or Docker on it, cannot be asked."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class Login:
    """How to reach a host, from the inventory."""

    #: Opens the connection; raises any exception when it cannot.
    connect: Callable[[], Client]
    #: The same as OpenSSH's command line, for printing. Empty for this machine itself.
    command: tuple[str, ...]
    #: Docker is used through sudo (pyinfra's ``_sudo``).
    sudo: bool = False
    sudo_password: str | None = field(default=None, repr=False)


class Shell:
    """Commands and Docker on one host. Connects at the first use, once; a failure to connect is remembered."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(_SESSIONS)
        self._client: Client | None = None
        self._docker: DockerThere | None = None
        self._failure: AccessError | None = None
        self._needs_password = False

    def run(self, command: str, sudo: bool = False, seconds: float = COMMAND_SECONDS) -> str:
        """Standard output of a command. Raises AccessError when it fails or says nothing for ``seconds``."""
        client = self._connected()
        code, output, errors = self._execute(client, self._with_sudo(command) if sudo else command, sudo, seconds)
        if code:
            raise AccessError(
                f"{_shown(command)}: exit code {code}: {(errors or output).strip()[:400]}", "run the command by hand"
            )
        return output

    def outcome(self, command: str, seconds: float, stdin: str = "", sudo: bool = False) -> tuple[int, str, str]:
        """Exit code, standard output and errors of a command that may fail. Raises AccessError when it cannot be run."""
        client = self._connected()
        return self._execute(client, self._with_sudo(command) if sudo else command, sudo, seconds, stdin)

    @contextmanager
    def stream(self, command: str, sudo: bool = False, size: os.terminal_size | None = None) -> Iterator[Channel]:
        """A command that goes on; its input stays open. ``size`` gives it a terminal. Raises AccessError when it cannot be begun."""
        client = self._connected()
        with self._sessions:
            try:
                transport = client.get_transport()
                if transport is None:
                    raise paramiko.SSHException("the connection is closed")
                channel = transport.open_session(timeout=COMMAND_SECONDS)
                if size:
                    channel.get_pty(os.environ.get("TERM", "xterm"), size.columns, size.lines)
                self._begin(channel, command, sudo, terminal=size is not None)
            except (OSError, paramiko.SSHException, EOFError) as error:
                raise AccessError(
                    f"{_shown(command)}: {error}", "see whether the host is overloaded or was restarted"
                ) from error
            with closing(channel):
                yield channel

    def _begin(self, channel: Channel, command: str, sudo: bool, terminal: bool) -> None:
        """Raises OSError and paramiko's errors."""
        if not (sudo and self._needs_password):
            channel.exec_command(self._with_sudo(command) if sudo else command)
            return
        if terminal:  # it would show the password, so it shows nothing until sudo has read it
            mark = secrets.token_hex(8)
            quiet = self._with_sudo(f"sh -c {shlex.quote(f'stty echo; {command}')}")
            channel.exec_command(f"stty -echo; printf %s {mark}; {quiet}")
            seen = b""
            while not seen.endswith(mark.encode()) and (more := channel.recv(1)):
                seen += more
        else:
            channel.exec_command(self._with_sudo(command))
        channel.sendall(f"{self._login.sudo_password}\n".encode())

    def docker(self) -> docker.APIClient:
        """The Docker SDK's client, its connections being `docker system dial-stdio` on the host. Raises AccessError."""
        from stoker.smoke.docker_there import DockerThere

        client = self._connected()
        with self._lock:
            if self._docker is None:
                password = self._login.sudo_password if self._needs_password else None
                try:
                    self._docker = DockerThere(
                        client, self._with_sudo("docker system dial-stdio"), password, COMMAND_SECONDS, CHANNELS
                    )
                except Exception as error:  # the SDK raises its own, requests', urllib3's and paramiko's
                    raise AccessError(
                        f"the Docker API does not answer: {error}", "see `systemctl status docker` there"
                    ) from error
            return self._docker

    def line(self, command: str, sudo: bool = False) -> str:
        """The command as a person runs it from here."""
        there = f"sudo {command}" if sudo and self._login.sudo else command
        return shlex.join([*self._login.command, there]) if self._login.command else there

    def close(self) -> None:
        if self._docker is not None:
            self._docker.close()
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Client:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._client is None:
                try:
                    self._client = self._open()
                except AccessError as error:
                    self._failure = error
                    raise
            return self._client

    def _open(self) -> Client:
        try:
            client = self._login.connect()
        except Exception as error:  # pyinfra's ConnectError, paramiko's, sockets', a key file that is not there
            raise AccessError(
                f"no SSH connection: {error}", _connect_remedy(str(error), self._login.command)
            ) from error
        if self._login.sudo:
            self._needs_password = self._execute(client, "sudo -n true", False)[0] != 0
            if self._needs_password and self._login.sudo_password is None:
                client.close()
                raise AccessError(
                    "sudo wants a password there", "give _sudo_password in the inventory, or allow sudo without one"
                )
        return client

    def _with_sudo(self, command: str) -> str:
        if not self._login.sudo:
            return command
        # -k: sudo must not skip the question, or the password would reach the command.
        return f"sudo -k -S -p '' {command}" if self._needs_password else f"sudo -n {command}"

    def _execute(
        self, client: Client, command: str, sudo: bool, seconds: float = COMMAND_SECONDS, text: str = ""
    ) -> tuple[int, str, str]:
        with self._sessions:
            try:
                transport = client.get_transport()
                if transport is None:  # closed by another thread
                    raise paramiko.SSHException("the connection is closed")
                # Closed here, or sshd counts it until the garbage collector comes.
                with closing(transport.open_session(timeout=seconds)) as channel:
                    channel.settimeout(seconds)
                    channel.exec_command(command)
                    if sudo and self._needs_password:
                        channel.sendall(f"{self._login.sudo_password}\n".encode())
                    channel.sendall(text.encode())
                    channel.shutdown_write()
                    output, errors = _whole(channel.recv), _whole(channel.recv_stderr)
                    return channel.recv_exit_status(), output, errors
            except (OSError, paramiko.SSHException, EOFError) as error:
                reason = (
                    f"no answer within {seconds:g} s"
                    if isinstance(error, TimeoutError)
                    else str(error) or type(error).__name__
                )
                raise AccessError(
                    f"{_shown(command)}: {reason}", "see whether the host is overloaded or was restarted"
                ) from error


def _whole(receive: Callable[[int], bytes]) -> str:
    return b"".join(iter(lambda: receive(_PART_BYTES), b"")).decode("utf-8", "replace")


def _shown(command: str) -> str:
    """A command for a sentence; a script of pages only by its beginning."""
    first = command.splitlines()[0] if command else ""
    return command if command == first and len(command) <= 200 else f"{first[:60]}…"


def _connect_remedy(reason: str, command: Sequence[str]) -> str:
    if "host key" in reason.lower():
        return f"if the host was rebuilt, forget its old key with `ssh-keygen -R {command[-1]}` and accept the new one: {shlex.join(command)}"
    return f"try {shlex.join(command)}; user, port, key and known_hosts come from the inventory (ssh_user, ssh_key ...)"


def logins(inventory: Any) -> dict[str, Login]:
    """The login of each host of pyinfra's Inventory that is reached by SSH, or is this machine. Contacts nothing."""
    from pyinfra.api import Config, State
    from pyinfra.connectors.local import LocalConnector
    from pyinfra.connectors.ssh import SSHConnector

    state = State(inventory, Config(CONNECT_TIMEOUT=CONNECT_SECONDS))
    found = {}
    for host in inventory:
        sudo, password = bool(host.data.get("_sudo")), host.data.get("_sudo_password")
        if issubclass(host.connector_cls, SSHConnector):
            connector = SSHConnector(state, host)
            found[host.name] = Login(
                _connecting(connector), _command(connector.data, host.name), sudo=sudo, sudo_password=password
            )
        elif issubclass(host.connector_cls, LocalConnector):
            connect = partial(LocalClient, sudo, password)
            found[host.name] = Login(connect, (), sudo=sudo, sudo_password=password)
    return found


def _connecting(connector: Any) -> Callable[[], Client]:
    def connect() -> Client:
        connector.connect()
        client: paramiko.SSHClient = connector.client
        return client

    return connect


def _command(data: Any, name: str) -> tuple[str, ...]:
    words = ["ssh"]
    for option, value in (
        ("-p", data["ssh_port"]),
        ("-i", data["ssh_key"]),
        ("-l", data["ssh_user"]),
        ("-F", data["ssh_config_file"]),
    ):
        words += [option, str(value)] if value else []
    if data["ssh_known_hosts_file"]:
        words += ["-o", f"UserKnownHostsFile={data['ssh_known_hosts_file']}"]
    return (*words, data["ssh_hostname"] or name)

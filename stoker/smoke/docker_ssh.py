"""The Docker SDK over an SSH connection that is already there, also through sudo.

The SDK's own ``ssh://`` (docker 7.2) connects by itself, knows only ~/.ssh/config, and always runs `docker` as the login user.
Here its HTTP goes through `sudo docker system dial-stdio`, so a user who is not in the group docker can be used.
"""

from __future__ import annotations

from typing import Any

import docker
import paramiko
from docker.transport.sshconn import SSHConnection, SSHConnectionPool, SSHHTTPAdapter


class DockerOverSsh(docker.APIClient):
    """The SDK's low-level client for the Docker of another host. Speaks the newest API that the host knows."""

    def __init__(self, client: paramiko.SSHClient, command: str, password: str | None, seconds: int) -> None:
        """``command`` joins its standard streams with Docker's socket; ``password`` is what its sudo asks for.

        Raises docker.errors.DockerException when Docker does not answer.
        """
        self._transport_adapter = _Adapter(client, command, password, seconds)
        super().__init__(base_url="http://docker", version="auto", timeout=seconds)

    def _retrieve_server_version(self) -> str:
        # The first request of all; the adapter has to be there before it.
        self.trust_env = False
        self.mount("http+docker://ssh", self._transport_adapter)
        self.base_url = "http+docker://ssh"
        return str(super()._retrieve_server_version())  # type: ignore[misc]


class _Adapter(SSHHTTPAdapter):
    def __init__(self, client: paramiko.SSHClient, command: str, password: str | None, seconds: int) -> None:
        self._given = client
        self._command, self._password, self._seconds = command, password, seconds
        super().__init__("ssh://host", timeout=seconds)

    def _create_paramiko_client(self, base_url: str) -> None:
        self.ssh_client = self._given

    def _connect(self) -> None:
        """Connected already."""

    def get_connection(self, url: str, proxies: Any = None) -> _Pool:
        with self.pools.lock:
            pool: _Pool | None = self.pools.get(url)
            if pool is None:
                pool = self.pools[url] = _Pool(self._given, self._command, self._password, self._seconds)
            return pool

    def close(self) -> None:
        """Leaves the SSH connection to its owner."""
        self.pools.clear()


class _Pool(SSHConnectionPool):
    def __init__(self, client: paramiko.SSHClient, command: str, password: str | None, seconds: int) -> None:
        self._command, self._password = command, password
        super().__init__(ssh_client=client, timeout=seconds, maxsize=2, host="host")

    def _new_conn(self) -> _Connection:
        return _Connection(self.ssh_transport, self._command, self._password, self.timeout)


class _Connection(SSHConnection):
    def __init__(self, transport: paramiko.Transport, command: str, password: str | None, seconds: float) -> None:
        self._command, self._password = command, password
        super().__init__(ssh_transport=transport, timeout=seconds, host="host")

    def connect(self) -> None:
        channel = self.ssh_transport.open_session(timeout=self.timeout)
        channel.settimeout(self.timeout)
        channel.exec_command(self._command)
        if self._password is not None:
            channel.sendall(f"{self._password}\n".encode())
        self.sock = channel

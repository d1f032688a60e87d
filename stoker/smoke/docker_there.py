"""The Docker SDK over a connection that is already there, also through sudo.

The SDK's own ``ssh://`` (docker 7.2) connects by itself, knows only ~/.ssh/config, and always runs `docker` as the login user.
Here its HTTP goes through `sudo docker system dial-stdio`, so a user who is not in the group docker can be used.
"""

from __future__ import annotations

import socket
from typing import Any

import docker
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from stoker.smoke.connection import Client, Transport

#: The SDK calls its base URL's scheme this where the connection is not its own.
_BASE_URL = "http+docker://ssh"


class DockerThere(docker.APIClient):
    """The SDK's low-level client for the Docker of another host. Speaks the newest API that the host knows."""

    def __init__(self, client: Client, command: str, password: str | None, seconds: int, channels: int) -> None:
        """``command`` joins its standard streams with Docker's socket; ``password`` is what its sudo asks for; so many ``channels``
        are used at once, and other requests wait.

        Raises docker.errors.DockerException when Docker does not answer.
        """
        transport = client.get_transport()
        if transport is None:
            raise docker.errors.DockerException("the connection is closed")
        self._pool = _Pool(transport, command, password, seconds, channels)
        # An address that the SDK accepts; _retrieve_server_version puts the real one in its place.
        super().__init__(base_url="http://docker:1", version="auto", timeout=seconds)

    def _retrieve_server_version(self) -> str:
        # The SDK's first request; the adapter has to be there before it.
        self.trust_env = False
        self.mount(_BASE_URL, _Adapter(self._pool))
        self.base_url = _BASE_URL
        return str(super()._retrieve_server_version())  # type: ignore[misc]


class _Adapter(HTTPAdapter):
    """Sends every request over one pool of channels."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        super().__init__()

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: bool | str | None, proxies: Any = None, cert: Any = None
    ) -> _Pool:
        return self._pool

    def close(self) -> None:
        self._pool.close()


class _Pool(HTTPConnectionPool):
    def __init__(self, transport: Transport, command: str, password: str | None, seconds: int, channels: int) -> None:
        self._transport, self._command, self._password, self._seconds = transport, command, password, seconds
        super().__init__("localhost", timeout=seconds, maxsize=channels, block=True)

    def _new_conn(self) -> _Connection:
        return _Connection(self._transport, self._command, self._password, self._seconds)


class _Connection(HTTPConnection):
    """HTTP over a channel of the connection; a channel has the methods of a socket that HTTP needs."""

    def __init__(self, transport: Transport, command: str, password: str | None, seconds: int) -> None:
        self._transport, self._command, self._password = transport, command, password
        super().__init__("localhost", timeout=seconds)

    def _new_conn(self) -> socket.socket:
        channel = self._transport.open_session(timeout=self.timeout)
        channel.settimeout(self.timeout)
        channel.exec_command(self._command)
        if self._password is not None:
            channel.sendall(f"{self._password}\n".encode())
        return channel  # type: ignore[return-value]

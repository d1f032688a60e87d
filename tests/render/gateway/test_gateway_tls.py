"""The gateway's HTTPS port, with a certificate of the site's own."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import gateway_fleet
import pytest
from gateway_members import Member
from gateway_process import (
    PATIENCE,
    Reply,
    RunningGateway,
    StartProtected,
    free_port,
    read_reply,
    running_gateway,
    until,
)
from nginx_binary import nginx_command
from support.certificates import write_pair

from stoker.render.gateway import CONFIG_DIRECTORY, render_gateway
from stoker.render.gateway_protection import TLS_DIRECTORY

CHAT = "/v1/chat/completions"
QWEN = {"model": "qwen2.5-14b", "messages": [{"role": "user", "content": "hello"}]}
KEY = "sk-test-of-team-a-0123456789"


def described(port: int) -> dict[str, object]:
    return {"port": port, "certificate": "/etc/stoker/tls/fullchain.pem", "key": "/etc/stoker/tls/privkey.pem"}


class Secure:
    """A gateway's HTTPS port."""

    def __init__(self, port: int, certificate: Path, plain: RunningGateway) -> None:
        self.port, self.certificate, self.plain = port, certificate, plain

    @contextlib.contextmanager
    def connection(
        self, version: ssl.TLSVersion | None = None, source: str = "127.0.0.1", trusted: Path | None = None
    ) -> Iterator[ssl.SSLSocket]:
        context = ssl.create_default_context(cafile=str(trusted or self.certificate))
        if version:
            context.set_ciphers("DEFAULT:@SECLEVEL=0")  # this machine's own library must be ready for what is old
            context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE, (source, 0)) as plain,
            context.wrap_socket(plain, server_hostname="gateway.test") as wrapped,
        ):
            yield wrapped

    def ask(self, path: str, body: object = None, key: str = "", source: str = "127.0.0.1") -> Reply:
        data = json.dumps(body).encode() if body else b""
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {len(data)}\r\n"
        if key:
            head += f"Authorization: Bearer {key}\r\n"
        with self.connection(source=source) as connection:
            connection.sendall(f"{head}\r\n".encode() + data)
            return read_reply(connection)


@pytest.fixture
def secure(protected: StartProtected, tmp_path: Path) -> Secure:
    certificate = write_pair(tmp_path / "etc-tls")
    port = free_port()
    keys = [{"name": "team-a", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
    return Secure(port, certificate, protected(tls=described(port), keys=keys))


def test_the_same_gateway_by_https(secure: Secure, all_members: list[Member]) -> None:
    reply = secure.ask(CHAT, QWEN, key=KEY)
    assert (reply.status, reply.json["member"]) == (200, "qwen")
    assert json.loads(all_members[-1].received[-1].body) == QWEN
    assert secure.plain.log_of(reply)["key"] == "team-a"
    assert secure.ask("/health").headers["x-stoker-config"] == secure.plain.identity


def test_the_plain_port_stays(secure: Secure) -> None:
    assert secure.plain.ask(CHAT, QWEN, headers={"x-api-key": KEY}).status == 200


def test_keys_and_networks_count_there_too(secure: Secure) -> None:
    assert secure.ask(CHAT, QWEN).error["code"] == "invalid_api_key"
    assert secure.ask(CHAT, QWEN, key=KEY, source="127.9.9.9").error["code"] == "network_not_allowed"


@pytest.mark.parametrize(
    ("version", "accepted"),
    [(ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_versions_of_the_protocol(secure: Secure, version: ssl.TLSVersion, accepted: bool) -> None:
    if accepted:
        with secure.connection(version) as connection:
            assert connection.version() == version.name.replace("_", ".")
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)), secure.connection(version):
            pass


def test_plain_http_on_the_https_port_is_told_so(secure: Secure) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), PATIENCE) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: g\r\n\r\n")
        reply = read_reply(connection)
    assert (reply.status, reply.error["code"]) == (400, "https_port")


@contextlib.contextmanager
def stream_begun(secure: Secure, member: Member) -> Iterator[http.client.HTTPResponse]:
    """A stream whose first piece has come; the others wait for the member's gate."""
    member.gate = threading.Semaphore(1)
    with secure.connection() as connection:
        body = json.dumps(QWEN | {"stream": True}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nx-api-key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert b'"piece": 0' in response.readline()
        yield response


def test_streams_come_in_pieces(secure: Secure, all_members: list[Member]) -> None:
    with stream_begun(secure, all_members[-1]) as response:
        all_members[-1].gate.release(2)  # type: ignore[union-attr]
        assert b"[DONE]" in response.read()


def test_a_renewed_certificate_is_served_after_a_reload_and_streams_go_on(
    secure: Secure, all_members: list[Member]
) -> None:
    old = secure.certificate.with_name("old.pem")
    old.write_text(secure.certificate.read_text())
    with stream_begun(secure, all_members[-1]) as response:
        write_pair(secure.certificate.parent, days=90)
        with pytest.raises(ssl.SSLCertVerificationError), secure.connection():
            pass  # not read yet
        secure.plain.process.send_signal(signal.SIGHUP)

        def served(trusted: Path | None = None) -> bool:
            with contextlib.suppress(ssl.SSLCertVerificationError), secure.connection(trusted=trusted):
                return True
            return False

        until(served)
        until(lambda: not served(old))  # a worker that is about to end may take one more connection
        all_members[-1].gate.release(2)  # type: ignore[union-attr]
        assert b"[DONE]" in response.read()


def test_the_private_key_is_read_by_root_alone(secure: Secure) -> None:
    """nginx's workers, which speak with clients, run as another user and could not read the file."""
    assert (secure.certificate.parent / "privkey.pem").stat().st_mode & 0o777 == 0o600
    until(
        lambda: all(Path(f"/proc/{worker}").stat().st_uid for worker in secure.plain.workers())
    )  # once they have begun


@pytest.mark.parametrize("missing", ["fullchain.pem", "privkey.pem", "pair"])
def test_nginx_refuses_what_is_missing_or_does_not_fit(tmp_path: Path, missing: str) -> None:
    write_pair(tmp_path / "etc-tls")
    if missing == "pair":
        key = (tmp_path / "etc-tls/privkey.pem").read_text()
        write_pair(tmp_path / "etc-tls")
        (tmp_path / "etc-tls/privkey.pem").write_text(key)
    else:
        (tmp_path / "etc-tls" / missing).unlink()
    gateway = gateway_fleet.unified_with(tls=described(11443))
    (tmp_path / "etc").mkdir()
    for name, text in render_gateway(gateway, gateway_fleet.default_backends(gateway)).items():
        (tmp_path / "etc" / name).write_text(text)
    command = nginx_command(tmp_path / "etc", "-t", "-c", f"{CONFIG_DIRECTORY}/{gateway.config_file}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert TLS_DIRECTORY in done.stderr or "key values mismatch" in done.stderr


def test_an_authority_sees_the_proof_on_port_80_and_nothing_else(tmp_path: Path, all_members: list[Member]) -> None:
    write_pair(tmp_path / "etc-tls")
    gateway = gateway_fleet.unified_with(
        allowed_networks=["2001:db8:1::/48"], tls={"domain": "llm.example.org", "acme": {}}
    )
    client, authority = "2001:db8:1::5", "2001:db8:2::5"
    proof = tmp_path / "etc.state/acme/.well-known/acme-challenge/token"
    proof.parent.mkdir(parents=True)
    proof.write_text("token.thumbprint")
    (tmp_path / "etc.state/drained").write_text("")
    secret = proof.parents[1] / "secret"
    secret.write_text("x")
    with running_gateway(gateway, all_members, tmp_path / "etc", addresses=(client, authority)) as running:

        def ask(url: str) -> tuple[str, str]:
            command = ["nsenter", "--net", "-t", str(running.process.pid), "curl", "-qskg", "--path-as-is"]
            command += ["--interface", authority, "-w", "\n%{http_code}", url]
            body, _, status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rpartition(
                "\n"
            )
            return status, body

        base = "http://[::1]/.well-known/acme-challenge/"
        assert ask(f"{base}token") == ("200", "token.thumbprint")
        for url in (base, f"{base}other", f"{base}../secret", f"{base}..%2fsecret", f"{base}../../../drained", f"{base}../../drained",
                    "http://[::1]/", "http://[::1]/v1/models", "http://[::1]/health", "http://[::1]/drained"):  # fmt: skip
            assert ask(url)[0] in ("400", "403", "404"), url
        # To the gateway itself an authority is a stranger.
        assert ask(f"https://[::1]:{running.port}/v1/models")[0] == "403"

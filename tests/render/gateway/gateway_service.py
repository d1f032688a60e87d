"""A service elsewhere for the gateway's tests: it speaks OpenAI's API, knows one key and one model, and refuses as it is told to."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gateway_process import until

#: Where nginx asks for names in a container, and so in these tests.
DNS = ("127.0.0.11", 53)


@dataclass
class Refusal:
    """An answer in the place of the service's own."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return json.dumps(
            {"error": {"message": f"the service's own words for {self.status}", "code": "its_own"}}
        ).encode()


@dataclass
class Seen:
    """One request as the service got it."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Service:
    """What the service does, and what it has seen."""

    model: str = "text-embedding-3-small"
    key: str = "sk-secret.of_the-service"
    #: The answers to the next requests, before it works.
    refusals: list[Refusal] = field(default_factory=list)
    #: Close with a reset in the place of an answer.
    resets: bool = False
    seen: list[Seen] = field(default_factory=list)
    #: Of a stream.
    pieces: int = 3
    #: A stream's pieces after the first wait for it.
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    left: threading.Event = field(default_factory=threading.Event)
    port: int = 0


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            service.seen.append(Seen(self.path, headers, body))
            if service.resets:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                return
            if service.refusals:
                refusal = service.refusals.pop(0)
                self._answer(refusal.status, refusal.body, refusal.headers)
            elif headers.get("authorization") != f"Bearer {service.key}":
                text = f"Incorrect API key provided: {headers.get('authorization')}"
                self._answer(401, json.dumps({"error": {"message": text}}).encode())
            elif body.get("model") != service.model:
                self._answer(404, json.dumps({"error": {"message": f"no model {body.get('model')}"}}).encode())
            elif body.get("stream"):
                self._stream()
            else:
                self._answer(
                    200,
                    json.dumps(self._content(body)).encode(),
                    {"Set-Cookie": "track=1", "OpenAI-Organization": "ours"},
                )

        def _content(self, body: Mapping[str, Any]) -> dict[str, Any]:
            if self.path.endswith("/embeddings"):
                data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
                return {"object": "list", "model": f"{service.model}-2024", "data": data}
            message = {"role": "assistant", "content": "Yes."}
            return {"object": "chat.completion", "model": f"{service.model}-2024", "choices": [{"message": message}]}

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(service.pieces):
                if number:
                    service.gate.acquire()
                text = f"data: {json.dumps({'piece': number})}\n\n"
                try:
                    self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
                except OSError:
                    service.left.set()
                    return
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def running_service(service: Service, secure: ssl.SSLContext | None = None) -> Iterator[Service]:
    """Listening on 127.0.0.1, by TLS if ``secure``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service))
    server.daemon_threads = True
    if secure:
        server.socket = secure.wrap_socket(server.socket, server_side=True)
    service.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Names:
    """A DNS server that says 127.0.0.1 for every name while it ``knows``, and nothing otherwise."""

    def __init__(self) -> None:
        self.knows = True
        self.asked = 0

    def answer(self, question: bytes) -> bytes | None:
        """RFC 1035: the question again, and one address that is good for a second."""
        self.asked += 1
        if not self.knows:
            return None
        end = question.index(b"\0", 12) + 5
        (kind,) = struct.unpack("!H", question[end - 4 : end - 2])
        found = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton("127.0.0.1") if kind == 1 else b""
        head = question[:2] + b"\x81\x80" + question[4:6] + struct.pack("!HHH", 1 if found else 0, 0, 0)
        return head + question[12:end] + found


def _bound(listener: socket.socket) -> bool:
    """Others of the same tests, in another checkout, may have it for a while."""
    with contextlib.suppress(OSError):
        listener.bind(DNS)
        return True
    return False


@contextlib.contextmanager
def running_names() -> Iterator[Names]:
    """At the address of Docker's own; other tests that want it wait."""
    names = Names()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        until(lambda: _bound(listener))
        listener.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    question, client = listener.recvfrom(512)
                    if said := names.answer(question):
                        listener.sendto(said, client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield names
        finally:
            ended.set()
            thread.join(10)

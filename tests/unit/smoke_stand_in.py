"""A small HTTP server that stands in for an engine or a gateway, on 127.0.0.1 and a port of its own. Simulated."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

Reply = tuple[int, dict[str, str], bytes]


def as_json(body: object, status: int = 200) -> Reply:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


def vector(text: str, dimensions: int = 8) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    return [byte / 255 - 0.5 for byte in digest[:dimensions]]


@dataclass
class StandIn:
    """Answers like vLLM and Ollama as far as the smoke test asks. Change ``content``, ``embed`` or ``replies`` to break it."""

    models: tuple[str, ...]
    content: str = "Red, green and blue."
    embed: Callable[[str], list[Any]] = vector
    #: Path -> what is answered there instead.
    replies: dict[str, Reply] = field(default_factory=dict)
    #: Seconds between the pieces of a stream; None sends it in one piece.
    pause: float | None = 0.02
    #: So many streams are sent in one piece all the same.
    late_streams: int = 0
    #: As a gateway: members whose names go into the log, in turn.
    members: tuple[str, ...] = ()
    #: Speaks HTTPS with this certificate, whose key lies beside it as privkey.pem.
    certificate: Path | None = None
    log: list[str] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    port: int = 0
    _turn: Iterator[int] = field(default_factory=count)

    @contextmanager
    def serving(self) -> Iterator[StandIn]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stand_in.answer(self, None)

            def do_POST(self) -> None:
                stand_in.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.certificate.with_name("privkey.pem"))
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)

    def answer(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        self.requests.append((handler.path, dict(handler.headers), body))
        turn = next(self._turn)
        headers = {}
        if self.members:
            headers["X-Request-ID"] = f"request-{turn}"
            self.log.append(json.dumps({"id": f"request-{turn}", "member": self.members[turn % len(self.members)]}))
        if isinstance(body, dict) and body.get("stream") and handler.path not in self.replies:
            self._stream(handler, body["model"], headers)
            return
        status, own, content = self.replies.get(handler.path) or self._reply(handler.path, body)
        handler.send_response(status)
        for name, value in {**own, **headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    def _reply(self, path: str, body: Any) -> Reply:
        if path == "/health":
            return 200, {"Content-Type": "text/plain"}, b"OK"
        if path == "/v1/models":
            return as_json({"object": "list", "data": [{"id": model} for model in self.models]})
        if path == "/api/ps":
            return as_json(
                {"models": [{"name": f"{model}:latest", "size": 1200, "size_vram": 1200} for model in self.models]}
            )
        if path.endswith("/v1/chat/completions"):
            return as_json(
                {"model": body["model"], "choices": [{"message": {"role": "assistant", "content": self.content}}]}
            )
        if path.endswith("/v1/embeddings"):
            data = [{"index": index, "embedding": self.embed(text)} for index, text in enumerate(body["input"])]
            return as_json({"model": body["model"], "data": data})
        return as_json({"error": {"message": "no such path"}}, 404)

    def _stream(self, handler: BaseHTTPRequestHandler, model: str, headers: dict[str, str]) -> None:
        handler.send_response(200)
        for name, value in {**headers, "Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        events = [
            json.dumps({"model": model, "choices": [{"delta": {"content": word + " "}}]})
            for word in self.content.split()
        ]
        texts = [f"data: {event}\n\n".encode() for event in [*events, "[DONE]"]]
        self.late_streams -= 1
        for text in texts if self.pause is not None and self.late_streams < 0 else [b"".join(texts)]:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            handler.wfile.flush()
            threading.Event().wait(self.pause or 0)
        handler.wfile.write(b"0\r\n\r\n")

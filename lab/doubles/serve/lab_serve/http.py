"""A small HTTP/1.1 server on asyncio: keep-alive, chunked streaming, and notice when a client goes away, as uvicorn does."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any


@dataclass
class HttpRequest:
    """One request; header names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    client: str


@dataclass
class HttpResponse:
    """One answer: a body, or a stream of pieces; `ends_connection`: closed after it without a header that says so."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None
    ends_connection: bool = False


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]
AccessLog = Callable[[str, str], None]
"""Gets a request's path and its line."""


def json_response(content: Any, status: int = 200) -> HttpResponse:
    """A JSON answer in Starlette's compact form."""
    return HttpResponse(status, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())


class HttpServer:
    """Serves one listening socket with one handler.

    `name` is the Server header, empty for none. `idle_seconds` is how long a connection may wait for its next request.
    """

    def __init__(
        self, handler: Handler, access_log: AccessLog, *, name: str = "", idle_seconds: float | None = None
    ) -> None:
        self.handler = handler
        self.access_log = access_log
        self.name, self.idle_seconds = name, idle_seconds
        self.connections: dict[asyncio.Task[None], bool] = {}  # task -> a request is being answered

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        task = asyncio.current_task()
        assert task is not None
        peer = writer.get_extra_info("peername") or ("", 0)
        client = f"{peer[0]}:{peer[1]}"
        first_byte: asyncio.Future[bytes] | None = None
        try:
            while True:
                self.connections[task] = False
                first_byte = first_byte or asyncio.ensure_future(reader.read(1))
                start = await asyncio.wait_for(first_byte, self.idle_seconds)
                self.connections[task] = True
                request = await _read_request(start, reader, writer, client)
                if request is None:
                    break
                first_byte = await self._answer(request, reader, writer)
                if first_byte is None:
                    break
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.connections.pop(task, None)
            writer.close()

    async def finish(self) -> None:
        """Wait until every request in progress has been answered or its client has left; idle connections are ended."""
        while self.connections:
            self.close_idle()
            await asyncio.wait(list(self.connections), timeout=0.1)

    def close_idle(self) -> None:
        """End the connections on which nothing is being answered."""
        for task, busy in list(self.connections.items()):
            if not busy:
                task.cancel()

    async def _answer(
        self, request: HttpRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> asyncio.Future[bytes] | None:
        """Answer one request; returns the read of the next one's first byte, or None when the connection ends.

        That read begins at once: when it ends before the answer, with nothing, the client has left.
        """
        first_byte: asyncio.Future[bytes] = asyncio.ensure_future(reader.read(1))
        work = asyncio.ensure_future(self._respond(request, writer))
        try:
            both: set[asyncio.Future[Any]] = {first_byte, work}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and first_byte.result() == b"":
                return None
            if await work:
                return first_byte
            first_byte.cancel()
            return None
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _respond(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        """Write the answer; returns whether the connection stays."""
        try:
            response = await self.handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a bug of the double shows as vLLM shows one of its own: a 500
            about = {"message": str(error), "type": "InternalServerError", "param": None, "code": 500}
            response = json_response({"error": about}, 500)
        phrase = HTTPStatus(response.status).phrase
        target = urllib.parse.quote(request.path + ("?" + request.query if request.query else ""), safe="/?=&%:")
        self.access_log(
            request.path,
            f'INFO:     {request.client} - "{request.method} {target} HTTP/1.1" {response.status} {phrase}',
        )
        keep = request.headers.get("connection", "").lower() != "close"
        head = [f"HTTP/1.1 {response.status} {phrase}", f"date: {formatdate(time.time(), usegmt=True)}"]
        head += [f"server: {self.name}"] if self.name else []
        head += [f"{name}: {value}" for name, value in response.headers.items()]
        head += [f"content-type: {response.content_type}"] if response.content_type else []
        head += ["connection: close"] if not keep else []
        head.append(
            f"content-length: {len(response.body)}" if response.stream is None else "transfer-encoding: chunked"
        )
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        if response.stream is None:
            writer.write(response.body if request.method != "HEAD" else b"")
        else:
            await _write_stream(response.stream, writer)
        await writer.drain()
        return keep and not response.ends_connection


async def _write_stream(stream: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
    try:
        async for piece in stream:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
    writer.write(b"0\r\n\r\n")


async def _read_request(
    start: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str
) -> HttpRequest | None:
    """The request that begins with `start`; None when the client left or sent what is not HTTP."""
    if not start:
        return None
    head = start + await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    headers = {
        name.strip().lower(): value.strip()
        for name, colon, value in (line.partition(":") for line in lines[1:])
        if colon
    }
    length = headers.get("content-length") or "0"
    if len(words) != 3 or not length.isdigit():
        writer.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 30\r\nconnection: close\r\n\r\nInvalid HTTP request received."
        )
        await writer.drain()
        return None
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(length))
    path, _, query = words[1].partition("?")
    return HttpRequest(words[0], urllib.parse.unquote(path), query, headers, body, client)

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

MAX_HEADER_BYTES = 64 * 1024


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
    """One answer: a body, or a stream of pieces."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: AsyncIterator[bytes] | None = None


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]
AccessLog = Callable[[str], None]


def json_response(content: Any, status: int = 200) -> HttpResponse:
    """A JSON answer in Starlette's compact form."""
    return HttpResponse(status, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())


class HttpServer:
    """Serves one listening socket with one handler."""

    def __init__(self, handler: Handler, access_log: AccessLog) -> None:
        self.handler = handler
        self.access_log = access_log
        self.connections: dict[asyncio.Task[None], bool] = {}  # task -> a request is being answered

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        task = asyncio.current_task()
        assert task is not None
        self.connections[task] = False
        peer = writer.get_extra_info("peername") or ("", 0)
        client = f"{peer[0]}:{peer[1]}"
        held = b""
        try:
            while True:
                request = await _read_request(reader, held, client)
                if request is None:
                    break
                self.connections[task] = True
                held, keep = await self._answer(request, reader, writer)
                self.connections[task] = False
                if not keep:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.connections.pop(task, None)
            writer.close()

    def close_idle(self) -> None:
        """End the connections on which nothing is being answered."""
        for task, busy in list(self.connections.items()):
            if not busy:
                task.cancel()

    async def finish(self) -> None:
        """Wait until every request in progress has been answered or its client has left."""
        self.close_idle()
        while self.connections:
            await asyncio.wait(list(self.connections))

    async def _answer(
        self, request: HttpRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[bytes, bool]:
        """Answer one request; returns (bytes already read of the next one, keep the connection)."""
        gone = asyncio.ensure_future(reader.read(1))
        work = asyncio.ensure_future(self._respond(request, writer))
        await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and gone.result() == b"":
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return b"", False
        keep = await work
        if gone.done():
            return gone.result(), keep and gone.result() != b""
        if not keep:
            gone.cancel()
            return b"", False
        return await gone, True

    async def _respond(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        try:
            response = await self.handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the double must show a bug of its own as vLLM shows one: a 500
            response = json_response(
                {"error": {"message": str(error), "type": "InternalServerError", "param": None, "code": 500}}, 500
            )
        phrase = HTTPStatus(response.status).phrase
        target = request.path + ("?" + request.query if request.query else "")
        self.access_log(
            f'INFO:     {request.client} - "{request.method} {urllib.parse.quote(target, safe="/?=&%:")} HTTP/1.1" {response.status} {phrase}'
        )
        keep = request.headers.get("connection", "").lower() != "close"
        head = [
            f"HTTP/1.1 {response.status} {phrase}",
            f"date: {formatdate(time.time(), usegmt=True)}",
            "server: uvicorn",
        ]
        head += [f"{name}: {value}" for name, value in response.headers.items()]
        if response.stream is None:
            head.append(f"content-length: {len(response.body)}")
            if response.body or response.content_type != "":
                head += [f"content-type: {response.content_type}"] if response.content_type else []
        else:
            head += [f"content-type: {response.content_type}", "transfer-encoding: chunked"]
        if not keep:
            head.append("connection: close")
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        if response.stream is None:
            if request.method != "HEAD":
                writer.write(response.body)
            await writer.drain()
            return keep
        try:
            async for piece in response.stream:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
        finally:
            close = getattr(response.stream, "aclose", None)
            if close is not None:
                await close()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return keep


async def _read_request(reader: asyncio.StreamReader, held: bytes, client: str) -> HttpRequest | None:
    try:
        head = held + await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    target, _, _ = rest.rpartition(" ")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length") or 0))
    path, _, query = target.partition("?")
    return HttpRequest(method, urllib.parse.unquote(path), query, headers, body, client)

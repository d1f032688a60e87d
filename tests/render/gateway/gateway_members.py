"""Small engines for the gateway's tests: they answer with their name, remember what came, and fail on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

#: What a member does with a request for its model. ``silent`` never answers; ``reset`` closes with a TCP reset; ``reset_reused``
#: does so with a request on a connection that had one before.
Mode = Literal["answer", "busy", "bad_gateway", "error", "silent", "reset", "reset_reused", "reset_in_stream"]

_STATUS = {"busy": 503, "bad_gateway": 502, "error": 500}


#: Where engines are asked for their health, by whom does not matter.
_HEALTH = ("/health", "/api/version")


@dataclass
class Received:
    """One request as it reached a member."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    #: The request line and the header lines, as they came.
    head: str = ""


@dataclass
class Member:
    """One instance of an engine, listening on 127.0.0.1 while its server runs."""

    name: str
    model: str
    engine: Literal["vllm", "ollama"] = "vllm"
    mode: Mode = "answer"
    #: What it says when asked for its health.
    health: int = 200
    #: So many questions for its health get no answer at all.
    mute: int = 0
    #: Questions for its health so far.
    checks: int = 0
    port: int = 0
    aliases: tuple[str, ...] = ()
    #: What the gateway itself asked of it, to see whether it computes.
    proofs: list[Received] = field(default_factory=list)
    #: Clients' requests for its model.
    received: list[Received] = field(default_factory=list)
    #: The first line of every request of clients, of those that only read too.
    lines: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    aborted: threading.Event = field(default_factory=threading.Event)
    #: While clear, answers and the stream's next piece wait; tests open it.
    gate: threading.Semaphore | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def forget(self) -> None:
        self.received.clear()
        self.proofs.clear()
        self.lines.clear()
        self.most_running = 0
        self.mode = "answer"
        self.health = 200
        self.mute = 0
        self.gate = None
        self.aborted.clear()


class Members:
    """Runs members on an event loop of its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._servers: dict[str, asyncio.Server] = {}
        self._held: dict[str, socket.socket] = {}

    def start(self, member: Member) -> None:
        """Listen on the member's port; on a free one the first time."""
        if member.name not in self._held:
            self._held[member.name] = _held_port(member.port)
        member.port = self._held[member.name].getsockname()[1]
        listener = socket.create_server(("127.0.0.1", member.port))

        async def serve() -> asyncio.Server:
            return await asyncio.start_server(lambda r, w: _connection(member, r, w), sock=listener, limit=2**24)

        self._servers[member.name] = asyncio.run_coroutine_threadsafe(serve(), self._loop).result(10)

    def stop(self, member: Member) -> None:
        """Stop listening: a new connection is refused, as by an engine that is still loading."""
        server = self._servers.pop(member.name)

        async def close() -> None:
            server.close()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)

    def close(self) -> None:
        async def cancel() -> None:
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()

        for server in self._servers.values():
            self._loop.call_soon_threadsafe(server.close)
        for held in self._held.values():
            held.close()
        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def _held_port(port: int) -> socket.socket:
    """Keeps a port while its member is stopped: connections are refused there, and the kernel gives it to nobody else.

    Linux lets a socket bind beside one that does not listen when both have SO_REUSEADDR, but never chooses such a port itself.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held


@contextlib.contextmanager
def running_members(members: list[Member]) -> Iterator[Members]:
    runner = Members()
    try:
        for member in members:
            runner.start(member)
        yield runner
    finally:
        runner.close()


async def _connection(member: Member, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    answered = 0
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while request := await _read(member, reader):
            if answered and member.mode == "reset_reused":
                _reset(writer)
                break
            answered += 1
            if not await _answer(member, request, reader, writer):
                break
    writer.close()


async def _read(member: Member, reader: asyncio.StreamReader) -> Received | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    if path not in _HEALTH and not _is_proof(headers):
        member.lines.append(first)
    length = int(headers.get("content-length", 0))
    return Received(method, path, headers, await reader.readexactly(length), head.decode("latin-1"))


def _is_proof(headers: dict[str, str]) -> bool:
    return headers.get("x-request-id", "").startswith("proof-")


async def _answer(
    member: Member, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """True when the connection can be used again."""
    if request.path in _HEALTH:
        member.checks += 1
        if member.mute:
            member.mute -= 1
            await reader.read(1)  # until whoever asks gives up
            return False
        await _write_json(writer, member.health, _reading(member, request.path))
        return True
    if request.method == "HEAD":
        writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 7\r\n\r\n")
        return True
    if request.method == "GET":
        await _write_json(writer, 200, _reading(member, request.path))
        return True
    (member.proofs if _is_proof(request.headers) else member.received).append(request)
    member.running += 1
    member.most_running = max(member.most_running, member.running)
    work = asyncio.ensure_future(_work(member, request, writer))
    left = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            member.aborted.set()
            return False
        return work.result()
    finally:
        member.running -= 1
        work.cancel()
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await left


async def _work(member: Member, request: Received, writer: asyncio.StreamWriter) -> bool:
    await _pass_gate(member)
    mode = member.mode
    if mode == "silent":
        await asyncio.Event().wait()
    if mode == "reset":
        _reset(writer)
        return False
    if mode in _STATUS:
        await _write_json(writer, _STATUS[mode], {"error": {"message": f"{member.name} is {mode}"}})
        return True
    asked = _asked(request)
    if asked.get("stream") is True:
        await _stream(member, writer)
        return mode != "reset_in_stream"
    said = {"member": member.name, "path": request.path, "bytes": len(request.body)}
    await _write_json(writer, 200, {**_shape(member, request.path), **said})
    return True


async def _stream(member: Member, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(3):
        if number:
            await _pass_gate(member)
        piece = _completion(member, "chat.completion.chunk", {"delta": {"content": f"piece {number}"}})
        _chunk(writer, f"data: {json.dumps({**piece, 'from': {'member': member.name, 'piece': number}})}\n\n")
        await writer.drain()
        if member.mode == "reset_in_stream":
            _reset(writer)
            return
    _chunk(writer, "data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _pass_gate(member: Member) -> None:
    if member.gate is not None:
        while not member.gate.acquire(blocking=False):
            await asyncio.sleep(0.005)


def _chunk(writer: asyncio.StreamWriter, text: str) -> None:
    writer.write(f"{len(text):x}\r\n{text}\r\n".encode())


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN (SO_LINGER of zero), as the kernel does for a process that was killed."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _reading(member: Member, path: str) -> dict[str, object]:
    if path == "/v1/models":
        identity = f"{member.model}:latest" if member.engine == "ollama" else member.model
        entry = {"id": identity, "object": "model", "created": 1700000000, "owned_by": member.engine}
        other = {"id": "a-model-of-nobody", "object": "model", "created": 1700000000, "owned_by": member.engine}
        return {"object": "list", "data": [other, entry]}
    return {"member": member.name, "path": path, "models": [], "version": "0.0.0"}


def _shape(member: Member, path: str) -> dict[str, object]:
    """What clients of the engines' APIs look for in an answer."""
    vector = [0.5, 0.25]
    if path == "/v1/chat/completions":
        message = {"role": "assistant", "content": "Yes."}
        return _completion(member, "chat.completion", {"message": message, "finish_reason": "stop"})
    if path == "/v1/completions":
        return _completion(member, "text_completion", {"text": "Yes.", "finish_reason": "stop"})
    if path == "/v1/embeddings":
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        return {"object": "list", "model": member.model, "data": data, "usage": usage}
    return {
        "/api/embed": {"model": member.model, "embeddings": [vector]},
        "/api/embeddings": {"embedding": vector},
    }.get(path, {})


def _completion(member: Member, kind: str, choice: dict[str, object]) -> dict[str, object]:
    return {
        "id": "1",
        "object": kind,
        "created": 1700000000,
        "model": member.model,
        "choices": [{"index": 0, **choice}],
    }


def _asked(request: Received) -> dict[str, object]:
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):  # nested deeper than Python reads; vLLM answers 400
        return {}
    return body if isinstance(body, dict) else {}


async def _write_json(writer: asyncio.StreamWriter, status: int, content: object) -> None:
    data = json.dumps(content).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()

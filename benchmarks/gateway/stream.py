"""How much later a stream's first piece arrives through a proxy. As a program: the backend that streams.

python -m benchmarks.gateway.stream PORT [PORT ...]
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time

from benchmarks.gateway.subjects import MODEL, PATH, Subject

#: Pause between the first and the second piece: a proxy that waits for more would show it.
PAUSE_SECONDS = 0.01


def first_piece_ms(subject: Subject, direct: Subject, rounds: int) -> dict[str, float]:
    """Medians and 99th percentiles from the request to the first piece, asking directly and through the subject in turn."""
    with _connect(direct) as plainly, _connect(subject) as through:
        for _ in range(5):
            _ask(plainly, direct), _ask(through, subject)
        pairs = [(_ask(plainly, direct), _ask(through, subject)) for _ in range(rounds)]
    directly, passed = zip(*pairs, strict=True)
    return {
        "direct_p50_ms": round(statistics.median(directly), 3),
        "p50_ms": round(statistics.median(passed), 3),
        "added_p50_ms": round(statistics.median(passed) - statistics.median(directly), 3),
        "added_p99_ms": round(statistics.quantiles(passed, n=100)[98] - statistics.quantiles(directly, n=100)[98], 3),
    }


def _connect(subject: Subject) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", subject.port), 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _ask(connection: socket.socket, subject: Subject) -> float:
    """Milliseconds from the request until the first piece is there; the rest of the stream is read too."""
    data = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "stream": True, "model": MODEL}).encode()
    headers = "".join(f"{name}: {value}\r\n" for name, value in subject.headers.items())
    head = f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
    begun = time.perf_counter()
    connection.sendall(head.encode() + data)
    received, first = b"", 0.0
    while not received.endswith(b"0\r\n\r\n"):
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError(f"{subject.name} closed the connection: {received[:300]!r}")
        received += piece
        if not first and b"data: " in received:
            first = time.perf_counter() - begun
    if not first:
        raise RuntimeError(f"{subject.name} did not stream: {received[:300]!r}")
    return first * 1000


# --- the backend ---


def _piece(text: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": [choice],
    }
    return _framed(f"data: {json.dumps(chunk)}\n\n".encode())


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_BEGIN = _HEAD + _piece("Yes")
_END = _piece(".", "stop") + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            writer.write(_BEGIN)
            await asyncio.sleep(PAUSE_SECONDS)
            writer.write(_END)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _listen(ports: list[int]) -> None:
    servers = [await asyncio.start_server(_serve, "127.0.0.1", port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_listen([int(port) for port in sys.argv[1:]]))

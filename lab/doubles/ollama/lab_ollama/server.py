"""`ollama serve` of the double."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from datetime import timedelta

from lab_serve.http import HttpRequest, HttpResponse, HttpServer

from lab_ollama import VERSION
from lab_ollama.api import Api
from lab_ollama.devices import discover
from lab_ollama.log import access, log
from lab_ollama.runner import Runner, parse_keep_alive
from lab_ollama.store import Store, models_root

DEFAULT_KEEP_ALIVE = timedelta(minutes=5)
_SHOWN = (
    "OLLAMA_HOST",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_MODELS",
    "OLLAMA_NOPRUNE",
    "OLLAMA_NUM_PARALLEL",
)


def serve() -> int:
    """Serve until SIGTERM; returns the exit code."""
    host, port = address()
    log(
        "INFO",
        "routes.go:1640",
        "server config",
        env="map[" + " ".join(f"{name}:{os.environ.get(name, '')}" for name in _SHOWN) + "]",
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        print(f"Error: listen tcp {host}:{port}: bind: {(error.strerror or '').lower()}", file=sys.stderr)
        return 1
    store = Store(models_root())
    log("INFO", "images.go:522", f"total blobs: {len(list(store.blobs.iterdir()))}")
    if os.environ.get("OLLAMA_NOPRUNE", "") in ("", "0", "false"):
        log("INFO", "images.go:529", f"total unused blobs removed: {store.prune()}")
    log("INFO", "routes.go:1693", f"Listening on {'[::]' if host == '0.0.0.0' else host}:{port} (version {VERSION})")
    return asyncio.run(_run(listener, store))


async def _run(listener: socket.socket, store: Store) -> int:
    runner = Runner(discover(), parse_keep_alive(os.environ.get("OLLAMA_KEEP_ALIVE")) or DEFAULT_KEEP_ALIVE)
    api = Api(store, runner)

    async def handle(request: HttpRequest) -> HttpResponse:
        began = time.monotonic()
        response = await api.handle(request)
        access(request, response.status, time.monotonic() - began)
        return response

    http = HttpServer(handle, lambda path, line: None)
    server = await asyncio.start_server(http.connection, sock=listener)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.close()
    for task in list(http.connections):
        task.cancel()
    runner.unload()
    return 0


def address() -> tuple[str, int]:
    """(host, port) of OLLAMA_HOST; 127.0.0.1:11434 by default."""
    text = os.environ.get("OLLAMA_HOST", "").split("://")[-1].rstrip("/")
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, ""
    return host.strip("[]") or "127.0.0.1", int(port or 11434)

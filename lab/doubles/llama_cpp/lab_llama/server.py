"""The server's life: it listens before it loads, ends when the model cannot be loaded, and ends at SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Sequence

from lab_gpu import settings
from lab_gpu.machine import Gpu
from lab_serve.http import HttpServer

from lab_llama.api import Api
from lab_llama.arguments import Options
from lab_llama.loading import LoadError, load
from lab_llama.log import said_by

STREAM_SECONDS = 30.0
"""How long the real server waits for requests in flight when it is told to end: they get no further token, then they are cut (measured)."""
SECURITY = (
    "security: no API key is set and CORS allows all origins (see https://github.com/ggml-org/llama.cpp/pull/25655)"
)
PORT_NOTICE = "notice: server default port will be changed to :9931 in a future release (ref: https://github.com/ggml-org/llama.cpp/pull/26508)"


def serve(options: Options, cards: Sequence[Gpu]) -> int:
    """Serve until SIGTERM; returns the exit code."""
    said_by("srv", "llama_server", "initializing ...")
    said_by(
        "cmn", "common_params_print_info", "common_params_print_info: verbosity = 3 (adjust with the `-lv N` CLI arg)"
    )
    if options.embeddings and options.batch > options.micro_batch:
        said_by(
            "srv",
            "llama_server",
            f"embeddings enabled with n_batch ({options.batch}) > n_ubatch ({options.micro_batch})",
            "W",
        )
        said_by(
            "srv", "llama_server", f"setting n_batch = n_ubatch = {options.micro_batch} to avoid assertion failure", "W"
        )
    if not options.has_page:
        said_by("srv", "init_listener", "The UI is disabled")
        said_by("srv", "init_listener", "Use --ui/--no-ui (or deprecated --webui/--no-webui) to enable/disable")
    if not options.keys:
        said_by("srv", "llama_server", SECURITY, "W")
    return asyncio.run(_run(options, cards))


async def _run(options: Options, cards: Sequence[Gpu]) -> int:
    api = Api(options)
    http = HttpServer(api.handle, lambda _path, _line: None, name="llama.cpp")
    try:
        listener = _listen(options)
    except OSError:
        said_by(
            "srv", "start", f"couldn't bind HTTP server socket, hostname: {options.host}, port: {options.port}", "E"
        )
        return _exit("exiting due to HTTP server error")
    server = await asyncio.start_server(http.connection, sock=listener)
    try:
        api.loaded = await load(options, cards)
    except LoadError:
        server.close()
        return _exit("exiting due to model loading error")
    said_by("srv", "llama_server", "model loaded")
    stopped = asyncio.Event()
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # before this the signal ends the process, or nothing does where it is the first one
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    said_by("srv", "llama_server", f"listening on http://{options.host}:{options.port}")
    if options.port == 8080:
        said_by("srv", "llama_server", PORT_NOTICE, "W")
    crash = asyncio.ensure_future(_crash_on_fault(options))
    await stopped.wait()
    crash.cancel()
    said_by("srv", "operator()", "operator(): cleaning up before exit...")
    server.close()
    api.slots.frozen = True
    end = time.monotonic() + settings.number("llama_stop_seconds", STREAM_SECONDS)
    while api.unfinished and time.monotonic() < end:
        await asyncio.sleep(0.05)
    for task in list(http.connections):
        task.cancel()
    for one in api.loaded.held:
        one.close()
    return 0


def _listen(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
    except OSError:
        listener.close()
        raise
    return listener


def _exit(reason: str) -> int:
    said_by("srv", "operator()", "operator(): cleaning up before exit...")
    said_by("srv", "llama_server", reason, "E")
    return 1


async def _crash_on_fault(options: Options) -> None:
    began = time.monotonic()
    while True:
        fault, value = settings.fault(*options.aliases)
        if fault == "crash-after" and time.monotonic() - began >= float(value or 0):
            signal.raise_signal(signal.SIGKILL)
        await asyncio.sleep(0.2)

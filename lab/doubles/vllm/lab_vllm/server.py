"""The API server process of the double: binds, starts the engine, listens when it is ready, stops as vLLM does."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from typing import IO, Any

from lab_gpu import settings
from lab_gpu.machine import Gpu
from lab_serve.http import HttpServer

from lab_vllm import VERSION
from lab_vllm import arguments as command_line
from lab_vllm.api import GENERATE_TASKS, POOLING_TASKS, Api
from lab_vllm.engine_config import ConfigError, EngineConfig, configure, to_json
from lab_vllm.generation import Scheduler
from lab_vllm.log import Log
from lab_vllm.memory import KvCache
from lab_vllm.metrics import Metrics

WATCHDOG_SECONDS = 5.0  # entrypoints/launcher.py
STATS_SECONDS = 10.0  # VLLM_LOG_STATS_INTERVAL
KEEP_ALIVE_SECONDS = 5.0  # VLLM_HTTP_TIMEOUT_KEEP_ALIVE
INTERRUPTED = 130  # an uncaught KeyboardInterrupt, which is what SIGTERM while loading becomes


@dataclass
class Engine:
    """The running engine process and the pipe to it."""

    process: subprocess.Popen[bytes]
    commands: IO[str]

    def send(self, command: dict[str, Any]) -> None:
        """Tell the engine; one that is gone is not told."""
        try:
            self.commands.write(json.dumps(command) + "\n")
            self.commands.flush()
        except OSError:
            pass


class Server:
    """One `vllm serve`."""

    def __init__(self, arguments: Namespace, gpu: Gpu) -> None:
        self.arguments, self.gpu = arguments, gpu
        self.log = Log("APIServer")
        self.stopping = asyncio.Event()

    def run(self) -> int:
        """Serve until stopped; returns the exit code."""
        log, given = self.log, self.arguments
        log.info("utils.py:299", _banner(given.model))
        log.info("utils.py:233", f"non-default args: {non_default(given)}")
        try:
            listener = bind(given.host or "", given.port)
        except OSError as error:
            log.raw_error(f"Traceback (most recent call last):\nOSError: {error}")
            return 1
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGINT, _interrupt)
        try:
            config = configure(given, self.gpu, log)
            engine, cache = self._start_engine(config)
        except ConfigError as error:
            log.raw_error(f"Traceback (most recent call last):\n{_TRACE}{error.text()}")
            return 1
        except EngineStartError as error:
            log.raw_error(f"Traceback (most recent call last):\n{_TRACE}{error.kind}: {error}")
            return 1
        except KeyboardInterrupt:
            log.raw_error("Traceback (most recent call last):\nKeyboardInterrupt: terminated")
            return INTERRUPTED
        try:
            return asyncio.run(self._serve(listener, config, engine, cache))
        finally:
            engine.process.kill()  # only when the server failed; a stopped one has waited for its engine

    def _start_engine(self, config: EngineConfig) -> tuple[Engine, KvCache | None]:
        ready_read, ready_write = os.pipe()
        command_read, command_write = os.pipe()
        text = to_json(config, self.gpu, time.monotonic())
        process = subprocess.Popen(
            [
                "VLLM::EngineCore",
                "-c",
                "import sys; from lab_vllm.engine import main; sys.exit(main())",
                text,
                str(ready_write),
                str(command_read),
            ],
            executable=sys.executable,
            pass_fds=(ready_write, command_read),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        os.close(ready_write)
        os.close(command_read)
        engine = Engine(process, os.fdopen(command_write, "w", encoding="utf-8"))
        try:
            with os.fdopen(ready_read, encoding="utf-8") as ready:
                limit = float(os.environ.get("VLLM_ENGINE_READY_TIMEOUT_S") or 600)
                if not select.select([ready], [], [], limit)[0]:
                    process.kill()
                    raise EngineStartError("TimeoutError", _TOO_SLOW.format(limit=f"{limit:g}"))
                line = ready.readline()
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise
        if not line:
            code = process.wait()
            raise EngineStartError(
                "RuntimeError",
                f"Engine core initialization failed. See root cause above. Failed core proc(s): {{'EngineCore': {code}}}",
            )
        cache = json.loads(line)["cache"]
        return engine, KvCache(**cache) if cache else None

    def _access(self, path: str, line: str) -> None:
        """A line of uvicorn's access log, unless an argument keeps it out."""
        quiet = [one.strip() for one in (self.arguments.disable_access_log_for_endpoints or "").split(",")]
        if not self.arguments.disable_uvicorn_access_log and path not in quiet:
            self.log.plain(line)

    async def _serve(self, listener: socket.socket, config: EngineConfig, engine: Engine, cache: KvCache | None) -> int:
        log = self.log
        tasks = POOLING_TASKS if config.runner == "pooling" else GENERATE_TASKS
        log.info("api_server.py:592", f"Supported tasks: {tasks}")
        metrics = Metrics(config.served_names[0], config.max_model_len, _cache_info(config, cache))
        scheduler = Scheduler(config.max_num_seqs, cache.tokens if cache else 0, metrics, config.served_names)
        api = Api(config, self.arguments, scheduler, metrics)
        api.on_dead_request = self.stopping.set
        api.kill_engine = engine.process.kill
        idle = float(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE") or KEEP_ALIVE_SECONDS)
        http = HttpServer(api.handle, self._access, name="uvicorn", idle_seconds=idle)
        host = self.arguments.host or "0.0.0.0"
        log.info("api_server.py:596", f"Starting vLLM server on http://{host}:{self.arguments.port}")
        log.info("launcher.py:37", "Available routes are:")
        for path, methods in api.routes.items():
            log.info("launcher.py:46", f"Route: {path}, Methods: {', '.join(methods)}")
        log.raw_error(f"INFO:     Started server process [{os.getpid()}]\nINFO:     Waiting for application startup.")
        server = await asyncio.start_server(http.connection, sock=listener, backlog=2048)
        log.raw_error("INFO:     Application startup complete.")
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        background = [
            loop.create_task(self._watch_engine(engine, api)),
            loop.create_task(self._log_stats(api)),
            loop.create_task(self._crash_on_fault(engine, config)),
        ]
        waits = [loop.create_task(asked.wait()), loop.create_task(self.stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in background:
            task.cancel()
        if asked.is_set():
            await self._stop_engine(engine, api)
            log.info("launcher.py:137", "Shutting down FastAPI HTTP server.")
        server.close()
        log.raw_error("INFO:     Shutting down")
        http.close_idle()
        await asyncio.sleep(0.01)
        if http.connections:
            log.raw_error("INFO:     Waiting for connections to close. (CTRL+C to force quit)")
            await http.finish()
        log.raw_error("INFO:     Waiting for application shutdown.\nINFO:     Application shutdown complete.")
        engine.process.kill()
        engine.process.wait()
        return 0

    async def _stop_engine(self, engine: Engine, api: Api) -> None:
        """Abort or drain, then let the engine process end."""
        timeout = self.arguments.shutdown_timeout
        scheduler = api.scheduler
        api.draining = True
        engine.send({"stop": timeout, "requests": scheduler.unfinished})
        fault, _ = settings.fault(*api.config.served_names)
        limit = time.monotonic() + timeout
        while scheduler.unfinished and time.monotonic() < limit:
            await asyncio.sleep(0.02)
        if fault == "hang-shutdown":  # seen with a real engine that died before it reported the abort, 3 of 5 tries
            scheduler.freeze()
        else:
            scheduler.abort_all()
        engine.send({"done": True})
        await asyncio.to_thread(engine.process.wait)
        while scheduler.unfinished and fault != "hang-shutdown":
            await asyncio.sleep(0.01)

    async def _watch_engine(self, engine: Engine, api: Api) -> None:
        await asyncio.to_thread(engine.process.wait)
        self.log.error("core_client.py:668", "Engine core proc EngineCore died unexpectedly, shutting down client.")
        api.engine_dead = True
        api.scheduler.fail_all()
        await asyncio.sleep(WATCHDOG_SECONDS)
        self.stopping.set()

    async def _log_stats(self, api: Api) -> None:
        idle = False
        while True:
            await asyncio.sleep(STATS_SECONDS)
            prompt, generated = api.metrics.rates()
            scheduler = api.scheduler
            busy = bool(prompt or generated or scheduler.unfinished)
            if busy or not idle:
                self.log.info(
                    "loggers.py:259",
                    f"Engine 000: Avg prompt throughput: {prompt:.1f} tokens/s, Avg generation throughput: {generated:.1f} tokens/s, "
                    f"Running: {len(scheduler.running)} reqs, Waiting: {len(scheduler.waiting)} reqs, "
                    f"GPU KV cache usage: {scheduler.cache_usage() * 100:.1f}%, Prefix cache hit rate: 0.0%",
                )
            idle = not busy

    async def _crash_on_fault(self, engine: Engine, config: EngineConfig) -> None:
        """Faults that come some seconds after the engine became ready."""
        began = time.monotonic()
        while True:
            fault, value = settings.fault(*config.served_names)
            if fault in ("crash-after", "engine-death") and time.monotonic() - began >= float(value or 0):
                engine.process.kill()
                if fault == "engine-death":
                    return
                self.log.raw_error(
                    "Traceback (most recent call last):\nRuntimeError: CUDA error: unspecified launch failure (simulated)"
                )
                os._exit(1)
            await asyncio.sleep(0.2)


class EngineStartError(Exception):
    """The engine process ended, or took too long, before it was ready."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


_TOO_SLOW = (
    "Timed out waiting for engine core processes to start. This is often caused by slow weight loading for large models. "
    "Waited {limit}s (configured by VLLM_ENGINE_READY_TIMEOUT_S). To increase the timeout, set the environment variable: "
    "VLLM_ENGINE_READY_TIMEOUT_S=<seconds>"
)


_TRACE = (
    '  File "/usr/local/bin/vllm", line 10, in <module>\n    sys.exit(main())\n'
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/cli/main.py", line 75, in main\n    args.dispatch_function(args)\n'
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/openai/api_server.py", line 694, in run_server_worker\n'
    "    async with build_async_engine_client(\n"
)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: clients are refused until the engine is ready."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # As vLLM does. A second vLLM of the same user therefore starts on a port that one has; another program's port is refused.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def non_default(arguments: Namespace) -> dict[str, Any]:
    """Arguments that differ from their defaults, as the log line shows them."""
    known = command_line.defaults()
    given = vars(arguments)
    return {name: given[name] for name in known if name in given and given[name] != known[name]}


def _cache_info(config: EngineConfig, cache: KvCache | None) -> dict[str, str]:
    return {
        "block_size": str(config.block_size),
        "cache_dtype": "auto",
        "enable_prefix_caching": str(config.prefix_caching),
        "engine": "0",
        "gpu_memory_utilization": str(config.utilization),
        "num_gpu_blocks": str(cache.blocks if cache else None),
    }


def _banner(model: str) -> str:
    return (
        "\n       █     █     █▄   ▄█\n"
        f" ▄▄ ▄█ █     █     █ ▀▄▀ █  version {VERSION} (simulated by the Stoker lab)\n"
        f"  █▄█▀ █     █     █     █  model   {model}\n"
        "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀\n"
    )


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt("terminated")

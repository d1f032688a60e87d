"""lab/forward: offer an address of the lab on 127.0.0.1 of this computer, for a browser or an SDK.

usage: lab/forward [--port PORT] [--to ADDRESS:PORT]

    --port   the port on 127.0.0.1; default: the same as the port in the lab
    --to     where it leads; default: lab/lab.toml, [forward]

Runs until Ctrl-C or lab/down.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
from pathlib import Path

from lab.machines import config, network, processes, requirements, ui
from lab.machines.arguments import parse
from lab.machines.config import Lab
from lab.machines.errors import LabError
from lab.machines.paths import RUN

CLONE_NEWNET = 0x40000000  # linux/sched.h
PIECE = 65536
MARK = "lab.machines forward"


def main(arguments: list[str]) -> int:
    """The command. Raises LabError."""
    options = parse(__doc__ or "", arguments, values=("--port", "--to"))
    requirements.need_root()
    lab = config.load()
    target, target_port = _target(lab, options.values.get("--to"))
    port = _port(options.values.get("--port", str(target_port)))
    if not network.exists(lab.network):
        raise LabError("the lab is not up; start it with lab/up")
    listener = _listen(port)
    enter(lab)
    pid_file = RUN / f"forward-{port}.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    ui.say(f"http://127.0.0.1:{port} leads to {target}:{target_port} in the lab, until Ctrl-C or lab/down")
    try:
        asyncio.run(_serve(listener, target, target_port))
    finally:
        pid_file.unlink(missing_ok=True)
    return 0


def stop_all() -> None:
    """End every lab/forward, by its pid."""
    for pid_file in RUN.glob("forward-*.pid"):
        pid = processes.owned_pid(pid_file, "forward")
        if pid is not None:
            processes.stop(pid, 5)
        pid_file.unlink(missing_ok=True)


def enter(lab: Lab) -> None:
    """Move this process into the lab's network. Sockets that it has opened before stay where they were opened.

    Only before any other thread exists: the kernel moves one thread, and later ones inherit from it.
    """
    library = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{lab.network.namespace}").open() as name:
        if library.setns(name.fileno(), CLONE_NEWNET) != 0:
            raise LabError(f"the lab's network cannot be entered: {os.strerror(ctypes.get_errno())}")


def _target(lab: Lab, asked: str | None) -> tuple[str, int]:
    if asked is None:
        return lab.forward
    address, _, port = asked.rpartition(":")
    if not address:
        raise LabError(f"--to {asked}: an address and a port are needed, such as 192.168.31.10:11434")
    return address, _port(port)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise LabError(f"{text!r} is not a port; ports are 1 to 65535")
    return int(text)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise LabError(f"127.0.0.1:{port} cannot be used: {error.strerror}; choose another with --port") from None


async def _serve(listener: socket.socket, target: str, target_port: int) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(target, target_port)
        except OSError as error:
            ui.say(f"no connection to {target}:{target_port}: {error.strerror or error}")
            writer.close()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        for end in (writer, far_writer):
            end.close()

    server = await asyncio.start_server(connect, sock=listener)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with server:
        await ended.wait()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on every piece as it comes, so that a streamed answer streams, and then the end of the stream."""
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()

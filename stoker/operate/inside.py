"""``stoker exec``: a program in a container, reached as the inventory says, with a terminal where there is one here."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stoker.description import CannotStart, read
from stoker.operate.interrupts import INTERRUPTED, as_keyboard_interrupt
from stoker.operate.places import UnknownName, named
from stoker.smoke.connection import Channel
from stoker.smoke.local import LocalChannel
from stoker.smoke.ssh import REACH_IT, UNREACHED, AccessError, Shell, logins

NOT_STARTED = 3
#: As OpenSSH's own, when the connection is lost.
LOST = 255

_BYTES = 64 * 1024
#: Seconds between two looks at the size of the terminal, and at a host that takes no more input for now.
_LOOK_SECONDS = 0.2


def execute(inventory: Path, overlays: Sequence[str], name: str, command: Sequence[str]) -> int:
    """The program's own exit status; 3: it was not begun; 255: the connection was lost."""
    try:
        described = read(inventory, overlays)
        places = named(described.fleet, [name])
    except (*CannotStart, UnknownName) as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    if len(places) > 1:
        print(f"{name} runs on several hosts: {', '.join(place.name for place in places)}.", file=sys.stderr)
        return NOT_STARTED
    (place,) = places
    login = logins(described.inventory).get(place.host.name)
    if login is None:
        print(f"{place.host.name}: {UNREACHED}; {REACH_IT}.", file=sys.stderr)
        return NOT_STARTED
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    as_keyboard_interrupt()
    shell = Shell(login)
    line = shlex.join(["docker", "exec", "-it" if terminal else "-i", place.container, *command])
    try:
        size = shutil.get_terminal_size() if terminal else None
        with shell.stream(line, sudo=True, size=size) as channel, _raw(terminal):
            return attach(channel, sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno(), terminal)
    except AccessError as error:
        print(f"{place.host.name}: {error.reason}; {error.remedy}", file=sys.stderr)
        return NOT_STARTED
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        shell.close()


@contextmanager
def _raw(terminal: bool) -> Iterator[None]:
    """The terminal passes every key on, Ctrl-C too."""
    if not terminal:
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def attach(channel: Channel, stdin: int, stdout: int, stderr: int, terminal: bool = False) -> int:
    """Join a running command's streams with ours until it ends; returns its exit status, or LOST."""
    size = shutil.get_terminal_size()
    sent, more = b"", True
    while True:
        outputs = channel.files() if isinstance(channel, LocalChannel) else [channel.fileno()]
        watched = [*outputs, *([stdin] if more and not sent else [])]
        ready = select.select(watched, [], [], _LOOK_SECONDS)[0]
        if terminal and (now := shutil.get_terminal_size()) != size:
            channel.resize_pty(now.columns, now.lines)
            size = now
        if stdin in ready:
            sent = os.read(stdin, _BYTES)
            if not sent:
                more = False
                channel.shutdown_write()
        if sent and channel.send_ready():  # not all at once: it may have to write before it can read on
            try:
                sent = sent[channel.send(sent) :]
            except OSError:  # the program has ended; its output and its status are still to come
                sent, more = b"", False
        while channel.recv_ready():
            _write(stdout, channel.recv(_BYTES))
        while channel.recv_stderr_ready():
            _write(stderr, channel.recv_stderr(_BYTES))
        if channel.closed or (channel.eof_received and channel.exit_status_ready()):
            break
    for stream, receive in ((stdout, channel.recv), (stderr, channel.recv_stderr)):
        while rest := receive(_BYTES):
            _write(stream, rest)
    status = channel.recv_exit_status()
    if status < 0:
        os.write(stderr, b"the connection was lost; what was begun may go on there\n")
        return LOST
    return status


def _write(stream: int, data: bytes) -> None:
    while data:
        data = data[os.write(stream, data) :]

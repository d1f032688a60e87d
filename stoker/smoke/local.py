"""Commands on the machine where Stoker runs (pyinfra's ``@local``), in the shape of an SSH connection: subprocesses with pipes.

As over SSH a command has a session of its own, and a terminal where one is wanted. Unlike there, a command that has not ended when its
channel is closed is ended, with all processes of its group. When Stoker itself is gone, its input ends, and its terminal hangs up.
"""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_BYTES = 64 * 1024
#: Seconds between two looks whether another thread has ended the command, and whether its processes are gone.
_LOOK_SECONDS, _GONE_SECONDS = 0.5, 0.01
#: Seconds for a command to end by the end of its streams, and after each signal.
_STREAMS_SECONDS, _SIGNAL_SECONDS = 0.2, 1.0
#: A session's first process makes the terminal that it opens the one that sends it Ctrl-C, new sizes and the hang-up (tty_ioctl(4)).
_ON_TERMINAL = 'exec 3<>"$0" 3>&-; exec sh -c "$1"'


class LocalClient:
    """The machine itself. ``sudo`` and ``password``: how its user becomes root, to end what runs as root."""

    def __init__(self, sudo: bool = False, password: str | None = None) -> None:
        self._sudo, self._password = sudo, password
        self._channels: set[LocalChannel] = set()
        self._closed = False

    def get_transport(self) -> LocalClient | None:
        return None if self._closed else self

    def open_session(self, *, timeout: float | None) -> LocalChannel:
        """``timeout``: for an SSH connection's sake; this takes no time."""
        channel = LocalChannel(self._signal, self._channels.discard)
        self._channels.add(channel)
        return channel

    def close(self) -> None:
        """End whatever still runs."""
        self._closed = True
        for channel in list(self._channels):
            channel.end()

    def _signal(self, group: int, number: signal.Signals) -> bool:
        """To a group of processes. False: there is none that this user may end."""
        if not self._sudo:
            try:
                os.killpg(group, number)
            except OSError:
                return False
            return True
        ask = ["-n"] if self._password is None else ["-k", "-S", "-p", ""]
        argv = ["sudo", *ask, "sh", "-c", f"kill -{number.value} -{group}"]
        return (
            subprocess.run(
                argv, input=f"{self._password or ''}\n".encode(), capture_output=True, check=False
            ).returncode
            == 0
        )


class LocalChannel:
    """One command; has of paramiko's Channel what `stoker.smoke.connection` names, and what HTTP needs of a socket.

    ``tell`` sends a signal to a group of processes; ``gone`` is told when the channel is closed.
    """

    def __init__(
        self, tell: Callable[[int, signal.Signals], bool], gone: Callable[[LocalChannel], object] = lambda _: None
    ) -> None:
        self._tell, self._when_gone = tell, gone
        self._timeout: float | None = None
        self._terminal: tuple[str, int, int] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._input: int | None = None
        self._out, self._error = _Output(), _Output()
        self.closed = False

    # --- the command ----------------------------------------------------------------------------------------------------

    def settimeout(self, timeout: float | None) -> None:
        self._timeout = timeout

    def get_pty(self, term: str, width: int, height: int) -> None:
        self._terminal = (term, width, height)

    def resize_pty(self, width: int, height: int) -> None:
        with suppress(OSError, termios.error):  # the program has ended
            termios.tcsetwinsize(self.fileno(), (height, width))

    def exec_command(self, command: str) -> None:
        """Raises OSError."""
        if self._terminal:
            term, width, height = self._terminal
            ours, theirs = pty.openpty()
            termios.tcsetwinsize(ours, (height, width))
            self._input = os.dup(ours)
            self._out.open(ours)
            self._begin(["sh", "-c", _ON_TERMINAL, os.ttyname(theirs), command], theirs, theirs, theirs, TERM=term)
        else:
            stdin, self._input = os.pipe()
            out, stdout = os.pipe()
            error, stderr = os.pipe()
            self._out.open(out)
            self._error.open(error)
            self._begin(["sh", "-c", command], stdin, stdout, stderr)

    def _begin(self, argv: list[str], stdin: int, stdout: int, stderr: int, **environment: str) -> None:
        assert self._input is not None
        os.set_blocking(self._input, False)
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        finally:
            for file in {stdin, stdout, stderr}:
                os.close(file)

    # --- its input ------------------------------------------------------------------------------------------------------

    def send_ready(self) -> bool:
        return self._input is None or bool(select.select([], [self._input], [], 0)[1])

    def send(self, data: bytes) -> int:
        """As sshd does, drops what a program has not read that has closed its input."""
        if self.closed:
            raise OSError("the channel is closed")
        if self._input is None:
            return len(data)
        self._wait(self.send_ready, self._input)
        try:
            return os.write(self._input, data)
        except BlockingIOError:
            return 0
        except OSError:  # a broken pipe, or a terminal that nobody has any more
            return len(data)

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[self.send(data) :]

    def shutdown_write(self) -> None:
        """A terminal's input has no end."""
        if self._input is not None and not self._terminal:
            os.close(self._input)
            self._input = None

    # --- its output -----------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """That of standard output; `files` has all."""
        return self._out.file

    def files(self) -> list[int]:
        """Readable when there is output, or the end of it."""
        return [one.file for one in (self._out, self._error) if not one.ended]

    def recv(self, size: int) -> bytes:
        return self._take(self._out, size)

    def recv_stderr(self, size: int) -> bytes:
        return self._take(self._error, size)

    def recv_ready(self) -> bool:
        return self._out.ready()

    def recv_stderr_ready(self) -> bool:
        return self._error.ready()

    @property
    def eof_received(self) -> bool:
        return self._out.ended and self._error.ended

    def makefile(self, mode: str, buffering: int = -1) -> io.BufferedReader:
        """For http.client, which reads."""
        return io.BufferedReader(_Reader(self))

    def _take(self, output: _Output, size: int) -> bytes:
        self._wait(lambda: bool(output.buffer) or output.ended)
        return output.take(size)

    def _wait(self, done: Callable[[], bool], *also: int) -> None:
        """Until then, or until the channel is closed. Reads meanwhile: the command may have to write before it goes on.

        ``also``: files that are waited for, to be writable. Raises TimeoutError.
        """
        limit = None if self._timeout is None else time.monotonic() + self._timeout
        while not done() and not self.closed:
            left = _LOOK_SECONDS if limit is None else min(_LOOK_SECONDS, limit - time.monotonic())
            if left <= 0:
                raise TimeoutError("timed out")
            readable = select.select(self.files(), also, [], left)[0]
            for one in (self._out, self._error):
                if one.file in readable:
                    one.read()

    # --- its end --------------------------------------------------------------------------------------------------------

    def exit_status_ready(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def recv_exit_status(self) -> int:
        """A shell's: 128 and the signal's number where one ended it. -1 when the channel was closed."""
        if self._process is None or self.closed:
            return -1
        try:
            code = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError("timed out") from None
        return code if code >= 0 else 128 - code

    def end(self) -> None:
        """End the command's processes; from any thread. Whoever reads finds the end then, and closes the channel."""
        over, self.closed = self.closed or self._over, True
        if not over:
            self._kill()

    def close(self) -> None:
        """For the thread that uses the channel."""
        over, self.closed = self.closed or self._over, True
        if self._input is not None:
            os.close(self._input)
            self._input = None
        self._out.close()
        self._error.close()
        if not over and not self._gone(_STREAMS_SECONDS):
            self._kill()
        self._when_gone(self)

    @property
    def _over(self) -> bool:
        """It ended by itself; what it has left to go on without its streams is meant to."""
        return self._process is None or (self.exit_status_ready() and self.eof_received)

    def _kill(self) -> None:
        assert self._process is not None
        group = self._process.pid
        if self._tell(group, signal.SIGTERM) and not self._gone(_SIGNAL_SECONDS):
            self._tell(group, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, or is another user's
                self._process.wait(_SIGNAL_SECONDS)

    def _gone(self, seconds: float) -> bool:
        """Whether its processes end within so long."""
        assert self._process is not None
        limit = time.monotonic() + seconds
        while True:
            self._process.poll()
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return True
            except PermissionError:  # they are root's
                pass
            if time.monotonic() > limit:
                return False
            time.sleep(_GONE_SECONDS)


class _Output:
    """One stream of a command, and what has been read of it and not been taken yet."""

    def __init__(self) -> None:
        self.file = -1
        self.buffer = bytearray()
        self.ended = True  #: or not there

    def open(self, file: int) -> None:
        os.set_blocking(file, False)
        self.file, self.ended = file, False

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.file, self.ended = -1, True

    def read(self) -> None:
        """What is there now."""
        try:
            data = os.read(self.file, _BYTES)
        except BlockingIOError:
            return
        except OSError:  # a terminal's end
            data = b""
        self.buffer += data
        self.ended = not data

    def ready(self) -> bool:
        if not self.buffer and not self.ended and select.select([self.file], [], [], 0)[0]:
            self.read()
        return bool(self.buffer)

    def take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data


class _Reader(io.RawIOBase):
    """A channel's output as a file."""

    def __init__(self, channel: LocalChannel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

"""One container's lines: once, or on and on over restarts and lost connections."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import paramiko

from stoker.logs import remote
from stoker.logs.lines import Line, read, split
from stoker.logs.remote import Part
from stoker.smoke.connection import Channel
from stoker.smoke.ssh import AccessError, Login, Shell

_AGAIN_SECONDS = 2.0  # between two tries to reach a host
_POLL_SECONDS = 1.0  # between two looks whether a stopped container runs again
_PART_BYTES = 64 * 1024

#: Takes what is said about a stream, and is not of it.
Say = Callable[[str], None]


@dataclass
class Source:
    """A container and the way to it. ``name`` is how its lines are called."""

    name: str
    container: str
    shell: Shell


def once(source: Source, part: Part, say: Say) -> Iterator[Line]:
    """The log as it is; why it could not be read to its end goes to ``say``."""
    other: list[str] = []
    try:
        with source.shell.stream(_sh(remote.once(source.container, part)), sudo=True) as channel:
            channel.shutdown_write()
            yield from _lines(source, channel, other)
            code = channel.recv_exit_status()
    except AccessError as error:
        say(f"{source.name}: {error.reason}; {error.remedy}")
        return
    except (OSError, paramiko.SSHException, EOFError) as error:
        say(f"{source.name}: the log was cut short: {error}")
        return
    if code:
        lost = "the connection was lost" if code < 0 else " ".join(other) or f"docker logs ended with exit code {code}"
        say(f"{source.name}: {lost}")


class Follower:
    """Follows one container for as long as it is asked to."""

    def __init__(self, source: Source, login: Login, part: Part, put: Callable[[Line], None], say: Say) -> None:
        self._source, self._login, self._part, self._put, self._say = source, login, part, put, say
        self._at = ""
        self._seen = 0  # lines of that time

    def run(self) -> None:
        """Never returns. Every line once: after an interruption it goes on behind the last line that came."""
        said = ""
        while True:
            try:
                trouble = self._follow()
                if trouble and trouble != said:
                    self._say(f"{self._source.name}: {trouble}")
                said = trouble
                self._wait_for_start(quiet=bool(trouble))
            except (AccessError, OSError, paramiko.SSHException, EOFError) as error:
                self._say(f"{self._source.name}: the connection was lost ({error}); trying again")
                self._reach_again()

    def _follow(self) -> str:
        """Ends when the container has stopped; returns Docker's words when it is something else. Raises when the connection was lost."""
        again = self._at
        part = Part(again) if again else self._part
        skip = self._seen if again else 0
        other: list[str] = []
        with self._source.shell.stream(_sh(remote.follow(self._source.container, part)), sudo=True) as channel:
            for line in _lines(self._source, channel, other):
                if line.at == again and skip:
                    skip -= 1
                    continue
                self._seen = self._seen + 1 if line.at == self._at else 1
                self._at = line.at
                self._put(line)
            code = channel.recv_exit_status()
        if code < 0:
            raise EOFError("no more was said")
        return " ".join(other) if code else ""

    def _wait_for_start(self, quiet: bool) -> None:
        said = ""
        while True:
            found = self._source.shell.run(_sh(remote.state(self._source.container)), sudo=True).split()
            if found and found[0] == "running":
                if said or not quiet:
                    self._say(f"{self._source.name}: {'runs again' if said else 'was started anew'}")
                else:
                    time.sleep(_POLL_SECONDS)
                return
            now = f"it is {found[0]}, exit code {found[1]}" if len(found) > 1 else "there is no such container"
            if now != said:
                self._say(f"{self._source.name}: {now}; waiting for its next start")
                said = now
            time.sleep(_POLL_SECONDS)

    def _reach_again(self) -> None:
        """A new connection; the old one may be shared with others, which find that out by themselves."""
        while True:
            time.sleep(_AGAIN_SECONDS)
            shell = Shell(self._login)
            try:
                shell.run("true")
            except AccessError:
                shell.close()
                continue
            self._source.shell = shell
            self._say(f"{self._source.name}: connected again")
            return


def _lines(source: Source, channel: Channel, other: list[str]) -> Iterator[Line]:
    """What is no line of the log goes to ``other``."""
    for raw in split(iter(lambda: channel.recv(_PART_BYTES), b"")):
        line = read(source.name, raw)
        if line:
            yield line
        elif raw:
            other.append(raw.decode("utf-8", "replace"))


def _sh(script: str) -> str:
    return f"sh -c {shlex.quote(script)}"

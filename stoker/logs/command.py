"""``stoker logs``: as it is, or with ``follow`` as it comes."""

from __future__ import annotations

import os
import queue
import re
import shlex
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from stoker.description import CannotStart, Description, read
from stoker.facts.state import Container, parse
from stoker.logs import remote
from stoker.logs.errors import Errors
from stoker.logs.lines import Line
from stoker.logs.merge import Window, merged
from stoker.logs.remote import Part
from stoker.logs.show import Prefixes
from stoker.logs.stream import Follower, Source, once
from stoker.operate.interrupts import INTERRUPTED, as_keyboard_interrupt
from stoker.operate.places import Place, UnknownName, every, named
from stoker.operate.rounds import Rounds
from stoker.smoke.ssh import Login, Shell, logins
from stoker.spec.fleet import Host
from stoker.status.judge import why
from stoker.status.live import Said
from stoker.status.live import parse as parse_said
from stoker.status.probe import status_script

DONE, FAILED, NOT_STARTED = 0, 1, 3

#: Lines of each container where nothing else limits what is shown.
TAIL = 100
#: Logs over one connection: sshd allows 10 sessions, and looks at containers need some.
_STREAMS = 5
#: Lines that may wait to be shown; then the hosts wait.
_QUEUE = 2000


@dataclass(frozen=True)
class Wanted:
    """The command line. ``names``: empty for all. ``grep``: a regular expression, empty for every line."""

    names: Sequence[str] = ()
    limit: Sequence[str] = ()
    follow: bool = False
    since: str = ""
    tail: int | None = None
    grep: str = ""
    errors: bool = False

    def part(self) -> Part:
        """Raises ValueError."""
        since = remote.since(self.since) if self.since else ""
        everything = bool(since or self.grep or self.errors)
        return Part(since, self.tail if self.tail is not None or everything else TAIL)


def logs(inventory: Path, overlays: Sequence[str], wanted: Wanted) -> int:
    """0: all was read; 1: something could not be read, which was said; 3: not begun; 130: ended by Ctrl-C."""
    try:
        described = read(inventory, overlays, wanted.limit)
        part, pattern = wanted.part(), re.compile(wanted.grep)
        places = _places(described, wanted)
    except re.error as error:
        print(f"--grep {wanted.grep}: this is no regular expression: {error}", file=sys.stderr)
        return NOT_STARTED
    except (*CannotStart, UnknownName, ValueError) as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    as_keyboard_interrupt()
    run = _Run(described, places, wanted, part, pattern)
    try:
        return run.follow() if wanted.follow else run.once()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _places(described: Description, wanted: Wanted) -> list[Place]:
    """Raises UnknownName."""
    found = named(described.fleet, wanted.names) if wanted.names else every(described.fleet)
    hosts = {host.name for host in described.hosts}
    places = [place for place in found if place.host.name in hosts]
    if not places:
        raise UnknownName(f"{', '.join(wanted.names)}: not on the hosts that --limit names.")
    return places


@dataclass(frozen=True)
class _Reached:
    """A host: its connection, or why there is none; and what was found there, where that was asked."""

    shell: Shell | None
    reason: str = ""
    containers: dict[str, Container] | None = None
    said: Said | None = None


class _Run:
    def __init__(
        self, described: Description, places: Sequence[Place], wanted: Wanted, part: Part, pattern: re.Pattern[str]
    ) -> None:
        self._described, self._places, self._wanted, self._part, self._pattern = (
            described,
            places,
            wanted,
            part,
            pattern,
        )
        self._access = logins(described.inventory)
        terminal = Console().is_terminal
        self._prefixes = Prefixes(
            [place.name for place in places],
            terminal=terminal,
            colour=terminal and "NO_COLOR" not in os.environ,
        )
        self._failed = False

    def once(self) -> int:
        reached = self._reach()
        streams = [self._chosen(once(source, self._part, self._say)) for source, _ in self._sources(reached)]
        for line in merged(streams):
            print(self._prefixes.shown(line))
        if self._wanted.errors:
            self._diagnose(reached)
        return FAILED if self._failed else DONE

    def follow(self) -> int:
        """Until Ctrl-C."""
        lines: queue.Queue[Line] = queue.Queue(_QUEUE)
        filters = {place.name: Errors() for place in self._places}
        sources = self._sources(self._reach())
        for source, login in sources:
            follower = Follower(source, login, self._part, lines.put, self._note)
            threading.Thread(target=follower.run, daemon=True).start()
        window = Window()
        while sources:
            try:
                line = lines.get(timeout=0.1)
                if self._shows(line, filters[line.name]):
                    window.add(line)
            except queue.Empty:
                pass
            due = [self._prefixes.shown(one) for one in window.due()]
            if due:
                print("\n".join(due), flush=True)
        return FAILED

    def _chosen(self, lines: Iterable[Line]) -> Iterator[Line]:
        errors = Errors()
        return (line for line in lines if self._shows(line, errors))

    def _shows(self, line: Line, errors: Errors) -> bool:
        # Errors is asked about every line: it has to see where a traceback ends.
        wanted = errors.keep(line.text) if self._wanted.errors else True
        return wanted and bool(self._pattern.search(line.text))

    def _reach(self) -> dict[str, _Reached]:
        """By host. All at once; one that does not answer delays the others by the limit of `Rounds`."""
        hosts = [host for host in self._described.hosts if any(place.host.name == host.name for place in self._places)]
        rounds = Rounds(hosts, self._access, self._ask, lambda host, reason: _Reached(None, reason))
        found = {host.name: one for host, one in zip(hosts, rounds.round(), strict=True)}
        for name, one in found.items():
            if one.shell is None:
                self._say(f"{name}: {one.reason}")
        return found

    def _ask(self, host: Host, shell: Shell) -> _Reached:
        if not self._wanted.errors or self._wanted.follow:
            shell.run("true")
            return _Reached(shell)
        script = status_script(self._described.fleet, host, whole=False)
        rows = shell.run(f"sh -c {shlex.quote(script)}", sudo=True).splitlines()
        return _Reached(shell, "", dict(parse(rows).containers), parse_said(rows))

    def _sources(self, reached: dict[str, _Reached]) -> list[tuple[Source, Login]]:
        """Several connections to a host with many containers."""
        found = []
        for host, one in reached.items():
            if one.shell is None:
                continue
            login = self._access[host]
            shells = [one.shell]
            for at, place in enumerate(place for place in self._places if place.host.name == host):
                if at // _STREAMS == len(shells):
                    shells.append(Shell(login))
                found.append((Source(place.name, place.container, shells[-1]), login))
        return found

    def _diagnose(self, reached: dict[str, _Reached]) -> None:
        """Why an instance that does not run has ended."""
        for place in self._places:
            one = reached[place.host.name]
            if one.containers is None or one.said is None or place.instance is None:
                continue
            container = one.containers.get(place.container)
            if container is None:
                self._say(f"{place.name}: there is no such container on {place.host.name}; `stoker deploy` makes it")
                continue
            if container.running and place.container not in one.said.logs:
                continue  # it serves
            found = why(place.engine, container, one.said)
            if found:
                again = f", {container.restarts} restarts" if container.restarts else ""
                print(f"\n{place.name} on {place.host.name} is {container.status}{again}")
                print(f"  cause    {found.cause}")
                if found.evidence:
                    print(f"  printed  {self._prefixes.harmless(found.evidence)}")
                print(f"  remedy   {found.remedy}\n  more     {found.anchor}")

    def _say(self, words: str) -> None:
        self._failed = True
        self._note(words)

    def _note(self, words: str) -> None:
        sys.stdout.flush()
        print(f"-- {words}", file=sys.stderr, flush=True)

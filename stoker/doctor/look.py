"""What a live check looks at, and what it says."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stoker.doctor.live import Live
from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.spec.fleet import Fleet, Host

#: unknown: it could not be found out.
Verdict = Literal["ok", "finding", "unknown"]


@dataclass(frozen=True)
class Commands:
    """How a fix is written, so that a person can paste it where `stoker doctor` was run."""

    host: str
    ssh: tuple[str, ...]  #: OpenSSH's command line to the host; empty: it is this machine
    sudo: bool = False
    stoker: tuple[str, ...] = ()  #: options that chose the description, ``-i`` and ``--group-data``

    def there(self, *words: str) -> str:
        """A program on the host."""
        line = shlex.join([*(["sudo"] if self.sudo else []), *words])
        return shlex.join([*self.ssh, line]) if self.ssh else line

    def deploy(self, *more: str) -> str:
        return shlex.join(["stoker", "deploy", *self.stoker, "--limit", self.host, *more])

    def restart(self, container: str, *options: str) -> str:
        """An engine started anew, and proven; no other one is waited for."""
        return f"{self.there('docker', 'restart', *options, container)} && {self.deploy('--only', container)}"


@dataclass(frozen=True)
class LiveLook:
    """One host as it is described and as it was found, and how it is reached. ``now``: this machine's clock, seconds."""

    fleet: Fleet
    host: Host
    state: HostState
    live: Live
    now: int
    commands: Commands
    #: What is known of the models; None: the checks that rest on it say nothing.
    cards: Cards | None = None


class Line(NamedTuple):
    """What one check says of a host. ``fix`` is a command that is run here, or a setting; empty only when all is well."""

    verdict: Verdict
    detail: str
    fix: str = ""
    instance: str = ""  #: where it concerns the card of one instance, which cannot be proven before that is mended


#: Pure. No line at all where the check rests on something that another check has found missing.
LiveCheck = Callable[[LiveLook], list[Line]]


def ago(seconds: float) -> str:
    """A length of time in words: ``40 s``, ``12 min``, ``5 h``, ``3 days``."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} days"

"""The command on a host that prints a container's log. POSIX sh for root."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|m|s))+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?")


@dataclass(frozen=True)
class Part:
    """Which part of a log. ``since`` in Docker's words, empty for the whole; ``tail``: lines, None for all."""

    since: str = ""
    tail: int | None = None

    def options(self) -> str:
        since = f"--since {shlex.quote(self.since)} " if self.since else ""
        return f"{since}--tail {'all' if self.tail is None else self.tail}"


def since(text: str) -> str:
    """``10m``, ``1h30m``, ``2d`` (which Docker does not know) or a time, in Docker's words. Raises ValueError."""
    days = re.fullmatch(r"(\d+)d", text)
    if days:
        return f"{24 * int(days[1])}h"
    if _DURATION.fullmatch(text) or _TIME.fullmatch(text):
        return text
    raise ValueError(f"--since {text}: give a length of time (90s, 10m, 1h30m, 2d) or a time (2026-11-28T03:00:00Z)")


def once(container: str, part: Part) -> str:
    return f"exec docker logs --timestamps {part.options()} {shlex.quote(container)} 2>&1"


def follow(container: str, part: Part) -> str:
    """Goes on until the container stops; ends when its input ends, so that nothing is left behind by a lost connection."""
    logs = f"docker logs --follow --timestamps {part.options()} {shlex.quote(container)} 2>&1"
    return (
        f"exec 3<&0; {logs} </dev/null 3<&- & p=$!; "
        "{ cat >/dev/null; kill $p; } <&3 >/dev/null 2>&1 & w=$!; exec 3<&-; "
        "wait $p; c=$?; kill $w; exit $c"
    )


def state(container: str) -> str:
    """Prints the container's state and exit code, or nothing."""
    return f"docker inspect -f '{{{{.State.Status}}}} {{{{.State.ExitCode}}}}' {shlex.quote(container)} 2>/dev/null || true"

"""The note on a host that a start of a container has been proven by a real answer.

/var/lib/stoker/ready/<container> holds "<container id> <StartedAt>": when both are what Docker says now, this very
start has answered and the next deploy has nothing to wait for. A restart changes StartedAt, so it is proven anew.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

STAMP_DIRECTORY = "/var/lib/stoker/ready"


def stamp_text(container_id: str, started_at: str) -> str:
    return f"{container_id} {started_at}"


def is_proven(container_id: str, started_at: str, stamp: str) -> bool:
    """Was this start (Docker's full Id and State.StartedAt) proven? `stamp` is the file's text, "" when absent."""
    return bool(container_id) and stamp.strip() == stamp_text(container_id, started_at)


def read_stamps_fragment(containers: Iterable[str], directory: str = STAMP_DIRECTORY) -> str:
    """A line of POSIX sh that prints "stamp <container> <id> <StartedAt>" for each container that has a stamp."""
    names = " ".join(shlex.quote(name) for name in containers)
    if not names:
        return ":"
    return (
        f"for c in {names}; do [ -r {shlex.quote(directory)}/$c ] && "
        f'read -r i s <{shlex.quote(directory)}/$c && printf "stamp %s %s %s\\n" "$c" "$i" "$s"; done; :'
    )


def parse_stamps(output: str) -> dict[str, str]:
    """Stamps by container name from the output of `read_stamps_fragment`; other lines are ignored."""
    stamps: dict[str, str] = {}
    for line in output.splitlines():
        match line.split():
            case ["stamp", name, container_id, started_at]:
                stamps[name] = stamp_text(container_id, started_at)
    return stamps


def write_stamps_fragment(stamps: Mapping[str, str], directory: str = STAMP_DIRECTORY) -> str:
    """Lines of POSIX sh that write the stamps (text by container name), each file at once."""
    if not stamps:
        return ""
    lines = [f"mkdir -p {shlex.quote(directory)}"]
    for name, text in stamps.items():
        path = f"{directory}/{name}"
        lines.append(
            f"printf '%s\\n' {shlex.quote(text)} >{shlex.quote(path + '.new')} "
            f"&& mv -f {shlex.quote(path + '.new')} {shlex.quote(path)}"
        )
    return "\n".join(lines)

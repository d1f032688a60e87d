"""The note on a host that a start of a container has been proven by a real answer.

/var/lib/stoker/ready/<container> holds "<container id> <StartedAt>": when both are what Docker says now, this very
start has answered and the next deploy has nothing to wait for. A restart changes StartedAt, so it is proven anew.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

STAMP_DIRECTORY = "/var/lib/stoker/ready"


def stamp_text(container_id: str, started_at: str) -> str:
    return f"{container_id} {started_at}"


def is_proven(container_id: str, started_at: str, stamp: str) -> bool:
    """Was this start (Docker's full Id and State.StartedAt) proven? `stamp` is the file's text, "" when absent."""
    return bool(container_id) and stamp.strip() == stamp_text(container_id, started_at)


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

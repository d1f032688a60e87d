"""What only a running system can say, parsed from what the doctor's part of the probe printed. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stoker.facts.gpus import number, switch
from stoker.facts.state import SECTION

#: Name of the section of the probe's output.
LIVE = "live"

_UUID = re.compile(r"UUID: (GPU-[0-9a-f-]+)")


@dataclass(frozen=True)
class End:
    """How a container's last run ended. While it runs, Docker says 0 and nothing."""

    exit_code: int
    out_of_memory: bool  #: the kernel killed it for want of memory
    error: str  #: Docker's own words when it could not be started
    finished_at: str  #: Docker's time; year 1 when it has never ended


@dataclass(frozen=True)
class CardsSeen:
    """What ``nvidia-smi -L`` says inside a container. ``status``: exit status of ``docker exec``, 124 at the time limit."""

    status: int
    text: str

    @property
    def uuids(self) -> frozenset[str]:
        return frozenset(_UUID.findall(self.text))


@dataclass(frozen=True)
class FileSystem:
    """One mounted file system. Bytes; ``inodes`` is 0 where it does not count them (btrfs)."""

    mount: str
    used: int
    available: int
    inodes: int
    inodes_used: int

    @property
    def share(self) -> float:
        """Part in use as df reckons it: what only root may use counts as not there."""
        return self.used / ((self.used + self.available) or 1)


@dataclass(frozen=True)
class Live:
    """Everything that the live checks ask beside the host's state. Absent things are empty."""

    ends: Mapping[str, End] = field(default_factory=dict)  #: by container
    logs: Mapping[str, str] = field(
        default_factory=dict
    )  #: end of the log of each container that is down or was restarted
    cards_seen: Mapping[str, CardsSeen] = field(default_factory=dict)  #: by container, running ones only
    resident: Mapping[str, str] = field(default_factory=dict)  #: instance -> body of Ollama's /api/ps
    compute_lines: Mapping[str, str] = field(default_factory=dict)  #: instance -> the log's line about the device
    file_systems: Sequence[FileSystem] = ()
    persistence: Mapping[int, bool] = field(default_factory=dict)  #: card -> persistence mode


def parse(lines: Iterable[str]) -> Live:
    """The probe's output as Live: the lines of its section are kind, name, values; those of other sections are skipped."""
    of: dict[str, list[list[str]]] = {}
    inside = False
    for line in lines:
        if line.startswith(SECTION):
            inside = line[len(SECTION) :].strip() == LIVE
        elif inside:
            kind, *values = line.split("\t")
            of.setdefault(kind, []).append(values)

    def pairs(kind: str) -> dict[str, str]:
        return {row[0]: row[1] for row in of.get(kind, []) if len(row) == 2}

    return Live(
        ends=_ends(row[0] for row in of.get("end", []) if row),
        logs={name: _decoded(text) for name, text in pairs("log").items()},
        cards_seen={row[0]: CardsSeen(int(row[1]), row[2]) for row in of.get("cards", []) if len(row) == 3},
        resident=pairs("resident"),
        compute_lines=pairs("compute"),
        file_systems=_file_systems(row[0] for row in of.get("disk", []) if row),
        persistence=dict(_persistence(row[0] for row in of.get("persistence", []) if row)),
    )


def _persistence(lines: Iterable[str]) -> Iterator[tuple[int, bool]]:
    """Rows ``0, Enabled``."""
    for line in lines:
        index, _, word = line.partition(",")
        on = switch(word)
        if index.strip().isdigit() and on is not None:
            yield int(index), on


def moment(docker_time: str) -> float | None:
    """Docker's RFC 3339 time (UTC, nanoseconds) as seconds since the epoch; None for the year 1, which means never."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", docker_time)
    if not found or docker_time.startswith("0001"):
        return None
    return datetime.fromisoformat(f"{found.group(1)}+00:00").timestamp()


def _ends(lines: Iterable[str]) -> dict[str, End]:
    found = {}
    for line in lines:
        try:
            raw: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        found[raw["name"].lstrip("/")] = End(raw["exit"], raw["oom"], raw["error"], raw["finished"])
    return found


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode("utf-8", "replace")
    except binascii.Error:
        return ""


def _file_systems(lines: Iterable[str]) -> list[FileSystem]:
    """Rows of df: used, available, inodes, inodes in use, mount point; a dash stands where it does not count. Each mount once."""
    found = {}
    for line in lines:
        cells = line.split(maxsplit=4)
        if len(cells) == 5:
            used, available, inodes, inodes_used = (number(cell) or 0 for cell in cells[:4])
            found[cells[4]] = FileSystem(cells[4], used, available, inodes, inodes_used)
    return list(found.values())

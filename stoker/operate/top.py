"""What cards and containers do at one moment: the question, and the answer as data. Pure.

CPU time comes from Docker's own counters, read twice: `docker stats` would take two seconds.
"""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from stoker.facts import surroundings
from stoker.facts.gpus import processes
from stoker.facts.paths import DOCKER_SOCKET
from stoker.facts.probe import GPU_PROCESSES
from stoker.facts.state import SECTION
from stoker.spec.fleet import Host

#: Seconds between the two looks at the counters: processor use is the mean of this time.
SAMPLE_SECONDS = 0.5

_FIELDS = "index,uuid,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw,power.limit"
_MIB = 1 << 20


@dataclass(frozen=True)
class Process:
    """A process on a card. ``instance``: whose container it is in; empty for one that is not of this fleet."""

    pid: int
    name: str
    instance: str
    memory_mib: int | None


@dataclass(frozen=True)
class Card:
    """None: nvidia-smi does not say it of this card."""

    index: int
    uuid: str
    name: str
    utilization_percent: float | None
    memory_used_mib: float | None
    memory_total_mib: float | None
    temperature_celsius: float | None
    power_watts: float | None
    power_limit_watts: float | None
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True)
class Use:
    """A running container. 100 % is one core; memory without what the kernel may drop from its cache. None: it is not counted."""

    name: str
    cpu_percent: float | None
    memory_mib: float | None


@dataclass(frozen=True)
class HostTop:
    """One host. ``error`` says why nothing is known of it, or of its cards."""

    host: str
    error: str = ""
    cards: tuple[Card, ...] = ()
    containers: tuple[Use, ...] = field(default=())


def script(host: Host) -> str:
    """POSIX sh for root."""
    names = [instance.name for _, instance in host.instances()]
    names += [stack.gateway.container for stack in host.stacks if stack.gateway]
    # Docker 28 does not name the container in this answer: the file does.
    requests = " ".join(
        f'{{ curl -q -s -f -m 4 --unix-socket {DOCKER_SOCKET} {shlex.quote(f"http://docker/containers/{name}/stats?stream=false&one-shot=true")} >"$t/$1{name}"; }} &'
        for name in names
    )
    return "\n".join(
        [
            "export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin; umask 077",
            "t=$(mktemp -d /run/stoker-top.XXXXXX) || exit 1; trap 'rm -rf \"$t\"' EXIT",
            f"stats() {{ {requests} wait; }}",
            "stats 1",
            f"{{ sleep {SAMPLE_SECONDS}; stats 2; }} &",
            f"echo {shlex.quote(SECTION + 'cards')}",
            f"timeout 60 nvidia-smi --query-gpu={_FIELDS} --format=csv,noheader,nounits 2>&1; smi=$?; echo rc=$smi",
            GPU_PROCESSES,
            "wait",
            f"echo {shlex.quote(SECTION + 'running')}",
            f"docker inspect -f '{{{{if .State.Running}}}}{{{{.Id}}}}{{{{.Name}}}}{{{{end}}}}' {' '.join(map(shlex.quote, names))} 2>/dev/null",
            f"echo {shlex.quote(SECTION + 'stats')}",
            'for f in "$t"/*; do printf "%s\\t%s\\n" "${f##*/?}" "$(cat "$f")"; done',
        ]
    )


def parse(host: Host, lines: Iterable[str]) -> HostTop:
    """What the script has printed."""
    of: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith(SECTION):
            current = of.setdefault(line[len(SECTION) :].strip(), [])
        elif of:
            current.append(line)
    running = dict(line.split("/", 1) for line in of.get("running", []) if "/" in line)
    owners = surroundings.containers_of(of.get("gpu-containers", []))
    by_card: dict[str, list[Process]] = {}
    for app in processes(of.get("gpu-processes", [])):
        instance = running.get(owners.get(app.pid, ""), "")
        by_card.setdefault(app.gpu_uuid, []).append(Process(app.pid, app.name, instance, app.used_mib))
    rows = of.get("cards", [])
    good = rows[-1:] == ["rc=0"]
    return HostTop(
        host.name,
        error="" if good else " ".join(rows[:-1]) or "nvidia-smi does not answer",
        cards=tuple(_cards(rows[:-1], by_card)) if good else (),
        containers=tuple(_uses(running.values(), of.get("stats", []))),
    )


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _cards(rows: Sequence[str], by_card: Mapping[str, list[Process]]) -> Iterator[Card]:
    for row in csv.reader(rows, skipinitialspace=True):
        if len(row) == len(_FIELDS.split(",")) and row[0].strip().isdigit():
            index, uuid, name, *numbers = (cell.strip() for cell in row)
            use, used, total, heat, power, most = map(_number, numbers)
            yield Card(int(index), uuid, name, use, used, total, heat, power, most, tuple(by_card.get(uuid, ())))


def _number(cell: str) -> float | None:
    """None for ``[N/A]`` and its like."""
    try:
        return float(cell)
    except ValueError:
        return None


def _uses(running: Iterable[str], rows: Iterable[str]) -> Iterator[Use]:
    """``rows``: name and Docker's answer, two for each container."""
    looks: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name, _, text = row.partition("\t")
        if one := _object(text):
            looks.setdefault(name, []).append(one)
    for name in running:
        found = looks.get(name, [])
        yield Use(name, _cpu(found), _memory(found))


def _memory(found: Sequence[Mapping[str, Any]]) -> float | None:
    memory = (found[-1].get("memory_stats") or {}) if found else {}
    dropped = (memory.get("stats") or {}).get("inactive_file", 0)
    return (memory["usage"] - dropped) / _MIB if "usage" in memory else None


def _cpu(found: Sequence[Mapping[str, Any]]) -> float | None:
    """None also for a counter that stands at 0: nobody counts there."""
    if len(found) < 2:
        return None
    try:
        (begun, first), (ended, last) = [
            (_seconds(one["read"]), one["cpu_stats"]["cpu_usage"]["total_usage"]) for one in (found[0], found[-1])
        ]
    except (KeyError, ValueError, TypeError):
        return None
    return 100 * (last - first) / 1e9 / (ended - begun) if ended > begun and 0 < first <= last else None


def _seconds(docker_time: str) -> float:
    whole, _, fraction = docker_time.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def as_data(hosts: Sequence[HostTop]) -> dict[str, Any]:
    """The fields of the classes above; documented in docs/operations.md."""
    return {"hosts": [asdict(host) for host in hosts]}

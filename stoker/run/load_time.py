"""``stoker load-time``: what the caches of a host save at a start of one instance, measured there.

The instance is stopped and started twice, by Docker, behind its GPU's lock like every start. Before the first start its weights are
taken out of the page cache and its card's compiled graphs put aside; the second finds what the first has left. The phases are read
from the container's log, by Docker's times.
"""

from __future__ import annotations

import json
import posixpath
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stoker.description import CannotStart, read
from stoker.engine.mounts import CACHE, LOCKS, MODEL_DATA
from stoker.operate.contact import Contact
from stoker.operate.interrupts import INTERRUPTED, as_keyboard_interrupt
from stoker.ready.phase import Phase
from stoker.ready.probe import unix_time
from stoker.ready.spans import spans
from stoker.smoke.ssh import UNREACHED, AccessError, logins
from stoker.spec.fleet import Fleet, Host
from stoker.spec.instance import Instance
from stoker.steps.stack import member_name

#: Runs a command as root on the instance's host and gives its output; raises AccessError.
Run = Callable[[str, float], str]

DONE, FAILED, NOT_STARTED = 0, 1, 3

_POLL_SECONDS = 1.0
_COMMAND_SECONDS = 15.0
#: For a stop with its grace period, and for compiled graphs that are moved.
_LONG_SECONDS = 180.0
#: To wait for the card's lock when caches are put back; a start has it until its engine answers.
_LOCK_SECONDS = 60.0
#: What a host says instead of doing what needs the lock.
_TAKEN = "the lock is taken"
_FIRST_LINE = "stoker: GPU lock taken"
_LAST_LINE = "stoker: engine answers"
_WHOLE = "until it answers"


class NotMeasured(Exception):
    """The instance did not come up, or its container is not as the deploy makes it."""


class Busy(NotMeasured):
    """Another start has the card; nothing was changed."""


@dataclass(frozen=True)
class Places:
    """Where things of the instance are on its host. ``lock``: whoever has it may write to the cache, and others not."""

    weights: str
    cache: str
    lock: str

    @property
    def aside(self) -> str:
        return f"{self.cache}.aside"


def load_time(inventory: Path, overlays: Sequence[str], name: str, confirmed: Callable[[], bool]) -> int:
    """Say what will be done, and after ``confirmed`` measure and print. 0: done; 1: it did not come up, the host cannot be
    asked, or not all is as it was before; 3: not begun; 130: interrupted."""
    try:
        described = read(inventory, overlays)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    found = instances(described.fleet, name)
    if len(found) != 1:
        known = [one for host in described.fleet.hosts for one, _ in _of(described.fleet, host)]
        print(f"{name} is not one vLLM instance; there are {', '.join(known)}.", file=sys.stderr)
        return NOT_STARTED
    host, instance = found[0]
    access = logins(described.inventory)
    if host.name not in access:
        print(f"{host.name}: {UNREACHED}; measure on the host by hand.", file=sys.stderr)
        return NOT_STARTED
    print(f"{instance.name} on {host.name} will be stopped and started twice, first without its caches.")
    print(f"Its running requests are cut: `stoker drain {name}` first, where a gateway uses it.")
    if not confirmed():
        return NOT_STARTED
    contact = Contact(access)
    try:
        return carry_out(
            instance.name,
            host.settings.ready_timeout,
            lambda command, seconds: contact.run(host, command, seconds),
        )
    finally:
        contact.close()


def instances(fleet: Fleet, name: str) -> list[tuple[Host, Instance]]:
    """The vLLM instances of that name, which may be written name@host."""
    return [
        (host, instance) for host in fleet.hosts for own, instance in _of(fleet, host) if name in (instance.name, own)
    ]


def _of(fleet: Fleet, host: Host) -> list[tuple[str, Instance]]:
    return [
        (member_name(fleet, host, instance), instance) for _, instance in host.instances() if instance.engine == "vllm"
    ]


def carry_out(name: str, limit_seconds: float, run: Run) -> int:
    """Measure, print, and put everything back, whatever happens in between. The exit status of `load_time`; what went wrong is said."""
    where: Places | None = None
    status = FAILED
    as_keyboard_interrupt()
    try:
        where = places(name, json.loads(run(f"docker inspect {shlex.quote(name)}", _COMMAND_SECONDS))[0])
        print(table(measure(name, where, limit_seconds, run)))
        status = DONE
    except AccessError as error:
        print(f"{error.reason}; {error.remedy}", file=sys.stderr)
    except Busy as error:
        print(error, file=sys.stderr)
        where, status = None, NOT_STARTED
    except NotMeasured as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        if where:
            print(f"Interrupted; {name} gets its caches back and is started.", file=sys.stderr)
        status = INTERRUPTED
    finally:
        if where and not put_back(name, where, run, answers=status == DONE):
            status = status or FAILED
    return status


def measure(name: str, where: Places, limit_seconds: float, run: Run) -> dict[str, dict[str, float]]:
    """Seconds of each phase of a cold start and of a warm one. What was put aside for it stays there: `put_back`.

    Raises AccessError, Busy, and NotMeasured when the instance does not answer within ``limit_seconds``.
    """
    # The lock comes first, so that an instance that cannot be measured now is not interrupted.
    # It is not waited for: a wait would go on there after a Ctrl-C here, and take the caches aside when all are put back.
    if _TAKEN in run(locked(where, f"docker stop {shlex.quote(name)} && {without_caches(where)}", 0), _LONG_SECONDS):
        raise Busy(
            f"{name} or a neighbour on its card is starting, and has the card's lock; nothing was changed. "
            f"Try again when it answers: `stoker status`, or on the host `cat {where.lock}`, which says whose start it is"
        )
    cold = _start(name, limit_seconds, run)
    run(f"docker stop {shlex.quote(name)}", _LONG_SECONDS)
    return {"cold": cold, "warm": _start(name, limit_seconds, run)}


def put_back(name: str, where: Places, run: Run, answers: bool) -> bool:
    """The caches as they were, and the instance started. False when that failed or was interrupted: then what is left is said.

    Raises nothing for it, so that it hides no earlier error. ``answers``: its start is over, so it has no lock.
    """
    as_keyboard_interrupt()  # anew: a Ctrl-C now is to be told what it leaves, whether or not there was one before
    start = f"docker start {shlex.quote(name)}"
    stop = "" if answers else f"docker stop {shlex.quote(name)}; "
    try:
        if _TAKEN not in run(
            f"{stop}{locked(where, caches_back(where), _LOCK_SECONDS)}; back=$?; {start} && exit $back", _LONG_SECONDS
        ):
            return True
        reason = f"another start on the card has had its lock for {_LOCK_SECONDS:g} s"
    except AccessError as error:
        reason = error.reason
    except KeyboardInterrupt:
        reason = "interrupted"
    print(
        f"{name} may be stopped, and its card's compiled graphs may still be in {where.aside}: {reason}\n"
        f"On its host, as root:\n    flock {shlex.quote(where.lock)} sh -c {shlex.quote(caches_back(where))}\n    {start}",
        file=sys.stderr,
    )
    return False


def places(name: str, inspected: Mapping[str, object]) -> Places:
    """From what ``docker inspect`` says. Raises NotMeasured for a container that no deploy of this version has made."""
    mounts = {one["Destination"]: one["Source"] for one in _list(inspected.get("Mounts"))}
    words = [str(word) for word in _list(inspected.get("Args"))]
    try:
        model = words[words.index("--weights") + 1]
        # The cache of several cards is that of the first, by name (`cache_directory`).
        lock = min(words[at + 1] for at, word in enumerate(words) if word == "--lock")
        return Places(
            f"{mounts[MODEL_DATA]}/{posixpath.relpath(model, MODEL_DATA)}",
            mounts[CACHE],
            f"{mounts[LOCKS]}/{posixpath.relpath(lock, LOCKS)}",
        )
    except (ValueError, IndexError, KeyError):
        raise NotMeasured(f"the container {name} is of an earlier version; deploy it first") from None


def _list(value: object) -> list[dict[str, str]]:
    return value if isinstance(value, list) else []


def locked(where: Places, piece: str, seconds: float) -> str:
    """Shell: the piece while nobody else has the card's lock; when it cannot be had within ``seconds``, `_TAKEN` and nothing else."""
    return f"( exec 9<{shlex.quote(where.lock)}; flock -w {seconds:g} 9 || {{ echo '{_TAKEN}'; exit 0; }}; {piece} )"


def without_caches(where: Places) -> str:
    """Shell: the weights out of the page cache, the card's cache empty. Its directory stays, since neighbours have it mounted.

    What an earlier measurement could not put back is put back first, so that there is one thing aside.
    """
    weights, cache, aside = map(shlex.quote, (where.weights, where.cache, where.aside))
    return (
        f"{{ {caches_back(where)}; }} && find {weights}/ -type f -exec dd if={{}} iflag=nocache count=0 status=none \\; && "
        f"mkdir -p {aside} && find {cache}/ -mindepth 1 -maxdepth 1 -exec mv -t {aside} {{}} +"
    )


def caches_back(where: Places) -> str:
    """Shell: what was put aside is there again, beside what was compiled since.

    By tar, since `cp -n` of coreutils 9.2 to 9.4 fails where a file is there already.
    """
    cache, aside = map(shlex.quote, (where.cache, where.aside))
    return f"if [ -d {aside} ]; then tar -C {aside} -c . | tar -C {cache} -x --skip-old-files && rm -rf {aside}; fi"


def _start(name: str, limit_seconds: float, run: Run) -> dict[str, float]:
    """Start it, wait for its first answer, and read its log."""
    run(f"docker start {shlex.quote(name)}", _COMMAND_SECONDS)
    state = json.loads(run(f"docker inspect -f '{{{{json .State}}}}' {shlex.quote(name)}", _COMMAND_SECONDS))
    # The first lines may be a little older than that time.
    since = unix_time(state["StartedAt"], -0.2)
    logs = f"docker logs --timestamps --since {since} {shlex.quote(name)} 2>&1"
    end = time.monotonic() + limit_seconds
    while True:
        log = run(logs, _COMMAND_SECONDS)
        if _LAST_LINE in log:
            return phases(name, log)
        if time.monotonic() > end or "stoker: engine ended" in log:
            raise NotMeasured(f"{name} did not come up; see `docker logs --tail 500 {name}` there")
        time.sleep(_POLL_SECONDS)


def phases(name: str, log: str) -> dict[str, float]:
    """Seconds by the words for the phase, and of the whole from its turn on the GPU on, from a log with Docker's times.

    Raises NotMeasured when the log does not show where a start begins and ends.
    """
    # Not splitlines: a line may have a progress bar in it, whose steps are divided by \r.
    stamped = [_stamped(line) for line in log.split("\n") if line]
    lines = [(datetime.fromisoformat(stamp).timestamp(), text) for stamp, text in stamped]
    begun, ended = (_first(name, lines, words) for words in (_FIRST_LINE, _LAST_LINE))
    lines = lines[: ended + 1]
    found = {phase.words: seconds for phase, seconds in spans(lines).items() if phase is not Phase.SERVING}
    return {**found, _WHOLE: lines[-1][0] - lines[begun][0]}


def _first(name: str, lines: Sequence[tuple[float, str]], words: str) -> int:
    """Which line begins with the words. Raises NotMeasured."""
    for at, (_, text) in enumerate(lines):
        if text.startswith(words):
            return at
    raise NotMeasured(
        f"the log of {name} has no line `{words}` of this start, so its times cannot be told; see `docker logs {name}` there"
    )


def _stamped(line: str) -> tuple[str, str]:
    stamp, _, text = line.partition(" ")
    return stamp, text


def table(measured: Mapping[str, Mapping[str, float]]) -> str:
    """Phases by row, starts by column, in seconds."""
    names = [*dict.fromkeys(name for start in measured.values() for name in start)]
    names = [name for name in names if name != _WHOLE] + [_WHOLE]
    width = max(map(len, names))
    rows = [f"{'seconds':<{width}}" + "".join(f"{start:>9}" for start in measured)]
    for name in names:
        rows.append(f"{name:<{width}}" + "".join(f"{start.get(name, 0.0):>9.1f}" for start in measured.values()))
    return "\n".join(rows)

"""``stoker drain`` and ``stoker undrain``: members of gateways out of use and back, without a deploy and without a lost request.

The truth is a file on each gateway's host, which the gateway reads twice a second (docs/gateway.md). It is written, and then
the gateway is asked until it has seen it and nothing runs there any more.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stoker.description import CannotStart, read
from stoker.facts.paths import HOST_GATEWAYS
from stoker.operate.contact import Contact
from stoker.render.gateway import INSIDE_ADDRESS
from stoker.render.gateway_external import service_name
from stoker.smoke.ssh import AccessError, logins
from stoker.spec.fleet import Fleet, Host
from stoker.spec.gateway import Gateway
from stoker.steps.stack import member_name

#: Runs a command as root on a gateway's host and gives its output; raises AccessError.
Run = Callable[[Host, str], str]

DONE, FAILED, NOT_STARTED = 0, 1, 3

_POLL_SECONDS = 0.5


class LeftDrained(AccessError):
    """A gateway's host was lost behind the point where lists are written: on those of ``written`` they were, on others perhaps."""

    def __init__(self, cause: AccessError, written: Collection[Task]) -> None:
        super().__init__(cause.reason, cause.remedy)
        self.written = written


@dataclass(frozen=True)
class MemberState:
    """What a gateway says of one member."""

    name: str
    pool: str
    health: str
    drained: bool
    in_flight: int

    @property
    def usable(self) -> bool:
        return not self.drained and self.health not in ("down", "proving")


@dataclass(frozen=True)
class Task:
    """One gateway, and those of its members that are meant."""

    host: Host
    gateway: Gateway
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.gateway.container} on {self.host.name}"


def drain(
    inventory: Path,
    overlays: Sequence[str],
    instances: Sequence[str],
    *,
    back: bool = False,
    force: bool = False,
    limit_seconds: int = 600,
) -> int:
    """Drain, or with ``back`` return. 0: done; 1: not within the limit, or a gateway cannot be asked; 3: not begun."""
    try:
        described = read(inventory, overlays)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return NOT_STARTED
    known = list(dict.fromkeys(_names(described.fleet)))
    unknown = [name for name in instances if name not in known]
    outside = [name for name in unknown if name in _services(described.fleet)]
    if outside:
        print(
            f"{' and '.join(outside)}: a service elsewhere is no instance and cannot be drained; take its pool out of the "
            "gateway in group_data and deploy.",
            file=sys.stderr,
        )
        return NOT_STARTED
    if unknown:
        print(f"No host has an instance {' or '.join(unknown)}; there are {', '.join(known)}.", file=sys.stderr)
        return NOT_STARTED
    found = tasks(described.fleet, instances)
    if not found:
        print(f"No gateway has {', '.join(instances)} in a pool; there is nothing to do.")
        return DONE
    contact = Contact(logins(described.inventory))
    try:
        return attempt(found, contact.run, back=back, force=force, limit_seconds=limit_seconds)
    finally:
        contact.close()


def tasks(fleet: Fleet, instances: Collection[str]) -> list[Task]:
    """Every gateway that has one of the instances in a pool. Namesakes on two hosts are all meant, unless written name@host."""
    found = []
    for host in fleet.hosts:
        for stack in host.stacks:
            if stack.gateway is None:
                continue
            members = [pair for pool in stack.gateway.pools for pair in fleet.members(pool.model, pool.hosts)]
            names = tuple(
                member_name(fleet, where, instance)
                for where, instance in members
                if instance.name in instances or member_name(fleet, where, instance) in instances
            )
            if names:
                found.append(Task(host, stack.gateway, names))
    return found


def attempt(found: Sequence[Task], run: Run, *, back: bool, force: bool, limit_seconds: float) -> int:
    """`carry_out`, and what went wrong is said, with what it leaves drained. The exit status of `drain`."""
    try:
        return carry_out(found, run, back=back, force=force, limit_seconds=limit_seconds)
    except AccessError as error:
        print(f"{error.reason}; {error.remedy}", file=sys.stderr)
        if isinstance(error, LeftDrained):
            for task in found:
                held = ("stays" if len(task.names) == 1 else "stay") if task in error.written else "may be"
                names = ", ".join(task.names)
                print(f"{names} {held} drained at {task}; stoker undrain {' '.join(task.names)}", file=sys.stderr)
        return FAILED


def carry_out(found: Sequence[Task], run: Run, *, back: bool, force: bool, limit_seconds: float) -> int:
    """Check, write, wait. Raises AccessError when a gateway's host cannot be asked, LeftDrained once a list may be written."""
    written: list[Task] = []

    def write(task: Task) -> None:
        run(task.host, script(task, back))
        written.append(task)

    with ThreadPoolExecutor(len(found)) as pool:
        states = list(pool.map(lambda task: ask(task, run), found))
    if not back and not force:
        refused = [line for task, state in zip(found, states, strict=True) for line in emptied(task, state)]
        if refused:
            print("\n".join(refused), file=sys.stderr)
            print("Nothing was changed. Return another member first, or use --force.", file=sys.stderr)
            return NOT_STARTED
    try:
        with ThreadPoolExecutor(len(found)) as pool:
            # `map` would not begin the later ones when an earlier one fails; so `written` is whole when the pool has ended.
            for writing in [pool.submit(write, task) for task in found]:
                writing.result()
            return wait(found, lambda: list(pool.map(lambda task: _ask_twice(task, run), found)), back, limit_seconds)
    except AccessError as error:
        if back:
            raise
        raise LeftDrained(error, written) from error


def _ask_twice(task: Task, run: Run) -> list[MemberState]:
    """A wait of minutes does not end with one lost connection: the second question is asked over a new one. Raises AccessError."""
    try:
        return ask(task, run)
    except AccessError:
        return ask(task, run)


def ask(task: Task, run: Run) -> list[MemberState]:
    """What the gateway knows of its members now. Raises AccessError, also when what answers is older than this."""
    url = f"http://{INSIDE_ADDRESS}:{task.gateway.port}/members"
    output = run(task.host, f"docker exec {shlex.quote(task.gateway.container)} busybox wget -q -O - {url}")
    try:
        members = json.loads(output)["members"]
        return [
            MemberState(one["name"], one["pool"], one["health"], one["drained"], one["in_flight"]) for one in members
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise AccessError(f"{task} does not say what its members do", "deploy the gateway again") from error


def emptied(task: Task, members: Collection[MemberState]) -> Iterator[str]:
    """Pools of a gateway that would be left without a member to use."""
    for pool in dict.fromkeys(member.pool for member in members):
        mine = [member for member in members if member.pool == pool]
        if any(member.name in task.names for member in mine) and not any(
            member.usable and member.name not in task.names for member in mine
        ):
            others = [member for member in mine if member.name not in task.names]
            why = (
                ", ".join(f"{one.name} is {'drained' if one.drained else one.health}" for one in others)
                or "there is no other"
            )
            yield f"{task}: the pool {pool} would have no member left ({why})."


def script(task: Task, back: bool) -> str:
    """Change the list in one step; two who do so at once wait for each other."""
    names = " ".join(map(shlex.quote, task.names))
    patterns = " ".join(f"-e {shlex.quote(name)}" for name in task.names)
    others = f"{{ grep -vxF {patterns} drained || true; }} 2>/dev/null"
    wanted = others if back else f"{{ {others}; printf '%s\\n' {names}; }}"
    return (
        f"set -e; cd {shlex.quote(f'{HOST_GATEWAYS}/{task.gateway.container}')}; umask 022; exec 9>lock; flock -w 10 9; "
        f"{wanted} >drained.new; mv drained.new drained"
    )


def wait(found: Sequence[Task], look: Callable[[], list[list[MemberState]]], back: bool, limit_seconds: float) -> int:
    """Until every gateway has seen it and no request runs on a drained member. Prints what changes."""
    end = time.monotonic() + limit_seconds
    said = ""
    while True:
        waiting = []
        for task, members in zip(found, look(), strict=True):
            mine = [member for member in members if member.name in task.names]
            waiting += [f"{task}: {text}" for member in mine if (text := _left(member, back))]
        if not waiting:
            verb = "in use again" if back else "drained, and nothing runs there"
            print(f"{', '.join(dict.fromkeys(name for task in found for name in task.names))}: {verb}.")
            return DONE
        if (text := "\n".join(waiting)) != said:
            print(said := text)
        if time.monotonic() > end:
            print(f"Not within {limit_seconds:g} s; the list stays as it is now.", file=sys.stderr)
            return FAILED
        time.sleep(_POLL_SECONDS)


def _left(member: MemberState, back: bool) -> str:
    """What has not happened yet; empty when all has."""
    if member.drained is back:
        return f"{member.name} {'is still drained' if back else 'is not drained yet'}"
    if not back and member.in_flight:
        return (
            f"{member.name} is drained, {member.in_flight} request{'s' if member.in_flight > 1 else ''} still in flight"
        )
    return ""


def _services(fleet: Fleet) -> set[str]:
    """Every way to name a service elsewhere: its pool, and what gateways call it."""
    pairs = [pair for host in fleet.hosts for stack in host.stacks if stack.gateway for pair in stack.gateway.externals]
    return {name for pool, external in pairs for name in (pool.name, service_name(pool, external))}


def _names(fleet: Fleet) -> Iterator[str]:
    """Every way to name an instance."""
    for host in fleet.hosts:
        for _, instance in host.instances():
            yield instance.name
            yield member_name(fleet, host, instance)

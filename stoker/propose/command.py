"""``stoker init``: hosts in, a fleet that fits out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from stoker.draft.cards import UnknownCards, of_state, parse
from stoker.draft.files import NotWritten, put
from stoker.draft.objections import objections
from stoker.draft.shipped import Shipped, shipped
from stoker.draft.write import files
from stoker.facts.state import HostState
from stoker.plan.memory_plan import plan_host
from stoker.plan.memory_view import lines
from stoker.propose.look import CannotLook, look
from stoker.propose.machine import Machine
from stoker.propose.proposal import NoProposal, Proposal, propose
from stoker.spec.fleet import Fleet
from stoker.spec.problems import SpecError

DONE, FAILED, BAD_INPUT = 0, 1, 3


@dataclass(frozen=True)
class Wishes:
    """The command line."""

    hosts: Sequence[str]
    cards: Sequence[str]
    #: What the inventory is to say of every host: ``ssh_user``, ``_sudo`` ...
    login: Mapping[str, object]
    output: Path
    #: Ask nothing; then files that are there are never replaced.
    yes: bool


def init(wishes: Wishes) -> int:
    """Propose, show, write. 0: written; 1: not written; 3: a host, a card or an option cannot be used."""
    try:
        pins = shipped()
        machines = _machines(wishes)
        proposal = propose(machines, pins)
        fleet = proposal.draft.fleet(pins.versions)
    except (UnknownCards, CannotLook, NoProposal, SpecError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    _show(proposal, fleet, machines, pins)
    if not wishes.yes and not typer.confirm(f"Write this to {wishes.output}?", default=True):
        return FAILED
    try:
        written = put(wishes.output, files(proposal.draft, pins), lambda words: not wishes.yes and typer.confirm(words))
    except NotWritten as error:
        print(error, file=sys.stderr)
        return FAILED
    print(f"Written: {', '.join(str(path) for path in written)}")
    print(f"Next: stoker deploy --check -i {wishes.output / 'inventory.py'}")
    return DONE


def _machines(wishes: Wishes) -> list[Machine]:
    """Raises UnknownCards, CannotLook."""
    hosts = [*wishes.hosts]
    if not hosts and wishes.cards:
        hosts = [f"gpu-host-{number}" for number in range(1, len(wishes.cards) + 1)]
    elif not hosts and not wishes.yes:
        hosts = str(typer.prompt("The hosts' addresses, with spaces between")).split()
    if not hosts:
        raise CannotLook(
            "no host is named; write --host ADDRESS, or --cards '3 x V100-32GB' for one that is not there yet"
        )
    if len(set(hosts)) < len(hosts):
        raise CannotLook("a host is named twice; name each once")
    if wishes.cards and len(wishes.cards) != len(hosts):
        raise CannotLook(
            f"--cards is given {len(wishes.cards)} times for {len(hosts)} hosts; give it once for each in their order, or not at all"
        )
    if wishes.cards:
        return [Machine(host, parse(words), wishes.login) for host, words in zip(hosts, wishes.cards, strict=True)]
    found = look(dict.fromkeys(hosts, wishes.login))
    return [_machine(host, found[host], wishes) for host in hosts]


def _machine(host: str, found: HostState | CannotLook, wishes: Wishes) -> Machine:
    if isinstance(found, CannotLook):
        raise found
    try:
        return Machine(host, of_state(found.gpus), wishes.login, found)
    except UnknownCards as error:
        raise UnknownCards(f"{host}: {error}") from None


def _show(proposal: Proposal, fleet: Fleet, machines: Sequence[Machine], pins: Shipped) -> None:
    console = Console(highlight=False, soft_wrap=True)
    by_address = {machine.address: machine for machine in machines}
    rows = [("HOST", "CARDS", "INSTANCE", "GPU", "PORT", "MODEL"), *_rows(fleet, by_address)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for host in fleet.hosts:
        machine = by_address[host.name]
        for line in lines(plan_host(host, pins.cards, machine.state), {}):
            console.print(line)
        for reason in objections(host, machine.seen, pins.cards):
            console.print(f"  [yellow]{escape(reason.reason)}[/]\n    remedy: {escape(reason.remedy)}")
    for note in proposal.notes:
        console.print(escape(note))


def _rows(fleet: Fleet, machines: Mapping[str, Machine]) -> Iterator[tuple[str, ...]]:
    for host in fleet.hosts:
        where = (host.name, machines[host.name].cards.words)
        for _, instance in host.instances():
            gpus = ",".join(map(str, instance.gpus))
            yield (*where, instance.name, gpus, str(instance.port), instance.model)
        for gateway in (stack.gateway for stack in host.stacks if stack.gateway):
            served = ", ".join(pool.model for pool in gateway.pools)
            yield (*where, gateway.container, "-", str(gateway.port), served)

"""``stoker import``: Compose files that were made by hand as a fleet, with everything that was changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from stoker.draft.cards import UnknownCards, parse
from stoker.draft.files import NotWritten, put
from stoker.draft.shipped import shipped
from stoker.draft.write import files
from stoker.importer.errors import CannotImport
from stoker.importer.fleet import Source, import_files
from stoker.spec import explain
from stoker.spec.problems import SpecError

DONE, FAILED, BAD_INPUT = 0, 1, 3


def import_(
    paths: Sequence[Path], addresses: Sequence[str], cards: Sequence[str], output: Path, ask: Callable[[str], bool]
) -> int:
    """Read, write, tell. 0: written; 1: not written; 3: the files or options cannot be used."""
    try:
        sources = _sources(paths, addresses, cards)
        pins = shipped()
        imported = import_files(sources, pins)
        fleet = imported.draft.fleet(pins.versions)
    except (CannotImport, UnknownCards, SpecError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except ValidationError as error:
        print(_not_sayable(error), file=sys.stderr)
        return BAD_INPUT
    try:
        written = put(output, files(imported.draft, pins), ask)
    except NotWritten as error:
        print(error, file=sys.stderr)
        return FAILED
    for host in fleet.hosts:
        print(f"{host.name}: {', '.join(instance.name for _, instance in host.instances())}")
        for stack in host.stacks:
            if stack.gateway:
                pools = ", ".join(pool.model for pool in stack.gateway.pools)
                print(f"  gateway {stack.gateway.container} on port {stack.gateway.port}: {pools}")
    print("\n".join(imported.notes.lines()))
    print(f"Written: {', '.join(str(path) for path in written)}")
    print(f"Next: stoker plan -i {output / 'inventory.py'}; stoker deploy --check -i {output / 'inventory.py'}")
    return DONE


def _not_sayable(error: ValidationError) -> str:
    """What a description does not take, for instance a container's name or a part of a divided card."""
    lines = ["the files hold what a description does not take; nothing was written. Change it there, and import again:"]
    for details in error.errors():
        why, remedy = explain.reason(details)
        place = ".".join(map(str, details["loc"]))
        lines.append(f"  {place} = {explain.short(details['input'])}: {why}; {remedy}")
    return "\n".join(lines)


def _sources(paths: Sequence[Path], addresses: Sequence[str], cards: Sequence[str]) -> list[Source]:
    """Each file with its host. An option is given once for all files, or once for each, in their order."""
    for option, given in (("--inventory-address", addresses), ("--cards", cards)):
        if len(given) not in (0, 1, len(paths)):
            raise CannotImport(
                f"{option} is given {len(given)} times for {len(paths)} files; give it once for all, or once for each in their order"
            )
    found = []
    for number, path in enumerate(paths):
        address = addresses[min(number, len(addresses) - 1)] if addresses else ""
        words = cards[min(number, len(cards) - 1)] if cards else ""
        found.append(Source(path, address, parse(words) if words else None))
    return found

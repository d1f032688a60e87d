"""What a command that only looks at the fleet works on: the description, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from stoker.inventory import data_folders, fleet_of, load_inventory
from stoker.models.card import Cards, load_cards
from stoker.run.pyinfra_setup import UnsupportedPyinfra, set_up
from stoker.spec.fleet import Fleet, Host
from stoker.spec.problems import SpecError


class NoSuchHost(Exception):
    """``--limit`` matches none of the hosts."""


#: What `read` raises; each says for a person what is wrong.
CannotStart = (SpecError, UnsupportedPyinfra, NoSuchHost)


@dataclass(frozen=True)
class Description:
    """An inventory and its group data."""

    inventory: Any  #: pyinfra's
    fleet: Fleet
    cards: Cards
    hosts: list[Host]  #: those asked for, never none


def read(inventory: Path, overlays: Sequence[str] = (), limit: Sequence[str] = ()) -> Description:
    """Contacts no host. ``limit``: names or patterns of hosts; empty means all. Raises CannotStart."""
    set_up()
    loaded = load_inventory(inventory, overlays)
    fleet = fleet_of(loaded, inventory, overlays)
    hosts = [host for host in fleet.hosts if not limit or any(fnmatch(host.name, pattern) for pattern in limit)]
    if not hosts:
        there = ", ".join(host.name for host in fleet.hosts)
        raise NoSuchHost(f"no host matches {', '.join(limit)}; there are {there}")
    return Description(loaded, fleet, load_cards(data_folders(inventory, overlays)), hosts)

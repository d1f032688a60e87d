"""What a command that only looks at the fleet works on: the description, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.inventory import data_folders, fleet_of, limited, load_inventory
from stoker.models.card import Cards, load_cards
from stoker.run.pyinfra_setup import UnsupportedPyinfra, set_up
from stoker.spec.fleet import Fleet, Host
from stoker.spec.problems import SpecError

#: What `read` raises; each says for a person what is wrong.
CannotStart = (SpecError, UnsupportedPyinfra)


@dataclass(frozen=True)
class Description:
    """An inventory and its group data."""

    inventory: Any  #: pyinfra's
    fleet: Fleet
    cards: Cards
    hosts: list[Host]  #: those asked for, never none


def read(inventory: Path, overlays: Sequence[str] = (), limit: Sequence[str] = ()) -> Description:
    """Contacts no host. ``limit``: groups, names or patterns of hosts; empty means all. Raises CannotStart."""
    set_up()
    loaded = load_inventory(inventory, overlays)
    fleet = fleet_of(loaded, inventory, overlays)
    chosen = limited(loaded, limit)
    hosts = [host for host in fleet.hosts if chosen is None or host.name in {one.name for one in chosen}]
    return Description(loaded, fleet, load_cards(data_folders(inventory, overlays)), hosts)

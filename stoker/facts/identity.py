"""Which card a name of the description means on a host. An index keeps its card, whatever order the driver finds after a reboot.

At the first deploy the host notes which card each index meant (RECORD). From then on the note counts and not the order of the day: a
card that comes up in another place does not swap models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from stoker.facts.gpus import Gpu
from stoker.facts.paths import HOST_STATE
from stoker.facts.state import HostState
from stoker.spec.gpu_name import GpuName

#: On the host: a line ``index uuid`` for each index that the description names.
RECORD = f"{HOST_STATE}/gpus"


class Card(Protocol):
    """Anything that says which card it is."""

    @property
    def index(self) -> int: ...
    @property
    def uuid(self) -> str: ...
    @property
    def bus_id(self) -> str: ...


C = TypeVar("C", bound=Card)


def parse_record(text: str) -> dict[int, str]:
    """Index -> UUID. Lines of another form are none of ours."""
    rows = (line.split() for line in text.splitlines())
    return {int(row[0]): row[1] for row in rows if len(row) == 2 and row[0].isdigit()}


def recorded(state: HostState) -> dict[int, str]:
    return parse_record(state.contents.get(RECORD, ""))


def named(cards: Iterable[C], record: Mapping[int, str]) -> dict[GpuName, C]:
    """Every name -> its card, for all cards that are there. A recorded index whose card is gone names none."""
    found: dict[GpuName, C] = {}
    for card in cards:
        names: tuple[GpuName, ...] = (card.index, card.uuid, card.bus_id)
        found.update({name: card for name in names if name != ""})
    for index, uuid in record.items():
        if uuid in found:
            found[index] = found[uuid]
        else:
            found.pop(index, None)
    return found


def by_name(state: HostState) -> dict[GpuName, Gpu]:
    """Every name that a card of this host has."""
    return named(state.gpus, recorded(state))


def chosen(state: HostState, names: Iterable[GpuName]) -> list[Gpu]:
    """The cards that these names mean, each once, in the order of nvidia-smi. A name without a card is left out."""
    cards = by_name(state)
    wanted = {cards[name].uuid for name in names if name in cards}
    return [gpu for gpu in state.gpus if gpu.uuid in wanted]

"""Engine profiles: builds of one engine that differ in what they run on, and so in what is checked before and after a start.

The default of an engine is its build for NVIDIA cards. Another one is chosen for the whole fleet by `profiles` in group_data. The
profiles of an engine stand in its module (stoker/engines).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class HostMemory:
    """What an engine takes of the machine's own memory, GiB: its processes, and a cache whose size a variable sets."""

    processes_gib: float
    #: Empty: nothing sets it.
    cache_variable: str
    #: Cache without the variable in the description: what the image itself sets.
    cache_gib: float
    #: An estimate for a small model, so that nothing is refused by it.
    estimated: bool = False

    def of(self, environment: Mapping[str, str]) -> float:
        """GiB of one instance with this environment. An unreadable size counts as the default; the engine refuses it."""
        given = environment.get(self.cache_variable, "")
        return self.processes_gib + (float(given) if given.isdigit() else self.cache_gib)


@dataclass(frozen=True)
class Profile:
    """One build of an engine."""

    #: On which hardware it runs and since which version that is known, for people.
    runs_on: str
    #: ``docker run`` arguments behind the image's options by which a container proves on the host that it computes on a card:
    #: the entry point, then its arguments; {uuid} is the card. Empty: it uses none.
    card_proof: tuple[str, ...] = ()
    #: Said where the proof, or the card's memory, would stand.
    not_applicable: str = ""
    #: Size of /dev/shm that one engine on one card needs; empty: Docker's 64 MiB do.
    shared_memory: str = ""
    #: None: it takes the memory of its cards.
    host_memory: HostMemory | None = None

    @property
    def uses_cards(self) -> bool:
        return bool(self.card_proof)

"""Cards by the names that people use, ``3 x V100-32GB``, for a fleet whose hosts are not asked. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stoker.facts.gpus import Gpu
from stoker.facts.state import HostState
from stoker.plan.checks.driver import capability
from stoker.spec.stack import GpuHardware


@dataclass(frozen=True)
class CardKind:
    """One product. Memory in GiB, as it is sold; compute capability as NVIDIA lists it (developer.nvidia.com/cuda-gpus)."""

    #: Part of the name that nvidia-smi prints.
    card: str
    memory_gib: int
    capability: tuple[int, int]


#: The larger of two sizes first: it is meant where no size is given.
KINDS = (
    CardKind("P40", 24, (6, 1)),
    CardKind("P100", 16, (6, 0)),
    CardKind("GTX 1080 Ti", 11, (6, 1)),
    CardKind("V100", 32, (7, 0)),
    CardKind("V100", 16, (7, 0)),
    CardKind("TITAN V", 12, (7, 0)),
    CardKind("T4", 15, (7, 5)),
    CardKind("RTX 2080 Ti", 11, (7, 5)),
    CardKind("RTX 8000", 48, (7, 5)),
    CardKind("A100", 80, (8, 0)),
    CardKind("A100", 40, (8, 0)),
    CardKind("A30", 24, (8, 0)),
    CardKind("RTX 3060", 12, (8, 6)),
    CardKind("RTX 3090", 24, (8, 6)),
    CardKind("RTX A6000", 48, (8, 6)),
    CardKind("A40", 48, (8, 6)),
    CardKind("A10", 24, (8, 6)),
    CardKind("RTX 4090", 24, (8, 9)),
    CardKind("L40S", 48, (8, 9)),
    CardKind("L4", 24, (8, 9)),
    CardKind("H100", 80, (9, 0)),
    CardKind("H200", 141, (9, 0)),
)


class UnknownCards(ValueError):
    """Words that name no cards: why, and what to write."""


@dataclass(frozen=True)
class HostCards:
    """What a host has: every card of one kind, as a description can say it."""

    count: int
    kind: CardKind

    @property
    def hardware(self) -> GpuHardware:
        return GpuHardware(count=self.count, card=self.kind.card, memory_gib=self.kind.memory_gib)

    @property
    def words(self) -> str:
        return f"{self.count} x {self.kind.card} {self.kind.memory_gib} GiB"

    def state(self) -> HostState:
        """A host of which nothing is known but its cards, for the checks that rest on them."""
        words = ".".join(map(str, self.kind.capability))
        return HostState(
            gpus=tuple(
                Gpu(number, f"card {number}", self.kind.card, self.kind.memory_gib * 1024, words)
                for number in range(self.count)
            )
        )


def parse(words: str) -> HostCards:
    """``3 x V100-32GB``, ``2 P40``, ``RTX 4090``. Raises UnknownCards."""
    found = re.fullmatch(
        r"\s*(?:(\d+)\s*(?:[x×*]\s*)?(?=[A-Za-z]))?(.*?)(?:[-\s]+(\d+)\s*(?:GB|GiB|G))?\s*", words, re.IGNORECASE
    )
    count, name, size = (found[1] or "1", found[2], found[3]) if found else ("1", words, None)
    if not 1 <= int(count) <= 16:
        raise UnknownCards(f"{words!r}: a host has 1 to 16 cards; write for instance '3 x V100-32GB'")
    fitting = [kind for kind in KINDS if _plain(kind.card) == _plain(name)]
    if not fitting:
        names = ", ".join(dict.fromkeys(kind.card for kind in KINDS))
        raise UnknownCards(
            f"{words!r} names no card that is known here; write for instance '3 x V100-32GB', with one of {names}"
        )
    sized = [kind for kind in fitting if size is None or kind.memory_gib in (int(size), int(size) - 1)]
    if not sized:
        sizes = " or ".join(str(kind.memory_gib) for kind in fitting)
        raise UnknownCards(f"{words!r}: a {fitting[0].card} has {sizes} GiB")
    return HostCards(int(count), sized[0])


def of_state(gpus: Sequence[Gpu]) -> HostCards:
    """What a host was found to have. Raises UnknownCards for what a description cannot say: cards of several sizes."""
    first = gpus[0]
    sizes = {round(gpu.memory_mib / 1024) for gpu in gpus}
    names = {gpu.name for gpu in gpus}
    name = first.name if len(names) == 1 else _common([*names])
    memory = min(sizes)
    if not name or max(sizes) * 0.9 > memory * 1.05:
        listed = ", ".join(f"{gpu.index} {gpu.name} {round(gpu.memory_mib / 1024)} GiB" for gpu in gpus)
        raise UnknownCards(f"its cards are of several kinds ({listed}), and a description holds one kind for a host")
    known = [kind for kind in KINDS if kind.card in name and 0.9 * kind.memory_gib <= memory <= 1.05 * kind.memory_gib]
    best = max(known, key=lambda kind: len(kind.card), default=None)
    lowest = min(map(capability, gpus))
    if best and len(names) == 1:
        return HostCards(len(gpus), CardKind(best.card, best.memory_gib, lowest))
    return HostCards(len(gpus), CardKind(name, memory, lowest))


def _plain(name: str) -> str:
    """``Tesla V100``, ``rtx4090`` and ``RTX 4090`` as one form."""
    return re.sub(r"(nvidia|tesla|geforce|quadro|[\s_-])", "", name.lower())


def _common(names: Sequence[str]) -> str:
    """The words that begin all names."""
    words = [name.split() for name in names]
    shared = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return " ".join(shared)

"""The sum on one card: what its instances claim, what each takes beside its claim, and what else lies there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stoker.plan.memory.predict import GIB, Prediction

#: Outside the budget of each instance: its CUDA context, and its CUDA graphs in versions that do not count them. About 1 GiB
#: together (0.3 to 0.5 for the context, 0.2 to 0.6 for graphs of few requests); not measured on a V100.
OVERHEAD: Final = GIB


@dataclass(frozen=True)
class FixedUse:
    """Something else on the card, such as a model in Ollama, in bytes."""

    name: str
    bytes: int
    #: In the best case, where ``bytes`` is an estimate; None: as much.
    least: int | None = None


@dataclass(frozen=True)
class CardSum:
    """One card, in bytes."""

    total: int
    instances: tuple[Prediction, ...]
    fixed: tuple[FixedUse, ...]

    @property
    def claimed(self) -> int:
        """What the instances may take by their settings."""
        return sum(one.claim for one in self.instances)

    @property
    def overhead(self) -> int:
        return OVERHEAD * len(self.instances)

    @property
    def fixed_bytes(self) -> int:
        return sum(use.bytes for use in self.fixed)

    @property
    def leftover(self) -> int:
        """What stays free; below 0 it does not fit."""
        return self.total - self.claimed - self.overhead - self.fixed_bytes

    @property
    def surely_too_much(self) -> bool:
        """Whether the instance that starts last cannot find free what it asks for, even if all the others are at rest.

        At rest an instance holds its weights and its cache; what it needs to compute it has given back, so a sum somewhat above
        the card can start. It fails under load instead.
        """
        at_rest = [one.claim - one.other - one.graphs for one in self.instances]
        least = min(
            (
                sum(at_rest) - held + max(one.requested, one.claim)
                for held, one in zip(at_rest, self.instances, strict=True)
            ),
            default=0,
        )
        fixed = sum(use.bytes if use.least is None else use.least for use in self.fixed)
        return least + fixed > self.total


def card_sum(total: int, instances: Sequence[Prediction], fixed: Sequence[FixedUse] = ()) -> CardSum:
    """The sum on a card of so many bytes."""
    return CardSum(total, tuple(instances), tuple(fixed))

"""How long an instance's last load took, phase by phase: kept on the host, so that everybody's next view can say how long it will take.

/var/lib/stoker/loads/<container> holds one line of JSON. It counts for the same image, weights and cards only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from stoker.ready.phase import Phase, Progress

LOADS = "/var/lib/stoker/loads"


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """What was loaded, and the seconds that each phase took; the wait for the GPU's turn is none of them."""

    image: str
    weights: str
    gpus: tuple[str, ...]
    seconds: Mapping[Phase, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def is_of(self, image: str, weights: str, gpus: tuple[str, ...]) -> bool:
        return (self.image, self.weights, self.gpus) == (image, weights, gpus)

    def remaining(self, progress: Progress, in_phase: float) -> float:
        """Seconds from now to the answer, after `in_phase` seconds in the present phase. A phase that takes longer than last time leaves the later ones."""
        later = sum(seconds for phase, seconds in self.seconds.items() if phase > progress.phase)
        last = self.seconds.get(progress.phase, 0.0)
        left = last - in_phase
        if progress.percent is not None:
            left = last * (1.0 - progress.percent / 100.0)
        return later + max(0.0, left)

    def text(self) -> str:
        seconds = {phase.name: round(value, 1) for phase, value in self.seconds.items()}
        return json.dumps({"image": self.image, "weights": self.weights, "gpus": self.gpus, "seconds": seconds})


def read_record(text: str) -> LoadRecord | None:
    """The record in a file's text; None when there is none, or one that another version wrote."""
    try:
        raw = json.loads(text)
        seconds = {Phase[name]: float(value) for name, value in raw["seconds"].items()}
        return LoadRecord(str(raw["image"]), str(raw["weights"]), tuple(map(str, raw["gpus"])), seconds)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None

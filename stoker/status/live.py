"""The answers of engines and gateways, parsed. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stoker.doctor import live
from stoker.doctor.live import LIVE, End
from stoker.facts.state import SECTION
from stoker.status.data import GatewayView
from stoker.status.metrics import Sample, sample


@dataclass(frozen=True)
class Said:
    """What a host's programs say of themselves, by the name of the container."""

    ends: Mapping[str, End] = field(default_factory=dict)
    #: End of the log of each engine that does not answer, with Docker's times.
    logs: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, list[Sample]] = field(default_factory=dict)
    #: Gateway -> (member, view).
    members: Mapping[str, tuple[tuple[str, GatewayView], ...]] = field(default_factory=dict)


def parse(lines: list[str]) -> Said:
    """The section that `stoker.status.probe` adds to the probe's output."""
    common = live.parse(lines)
    samples: dict[str, list[Sample]] = {}
    members = {}
    for kind, *cells in _rows(lines):
        if kind == "metrics" and len(cells) == 3 and (one := sample(cells[1], cells[2])):
            samples.setdefault(cells[0], []).append(one)
        elif kind == "members" and len(cells) == 2:
            members[cells[0]] = tuple(_views(*cells))
    return Said(common.ends, common.logs, samples, members)


def _rows(lines: Iterable[str]) -> Iterable[list[str]]:
    inside = False
    for line in lines:
        if line.startswith(SECTION):
            inside = line[len(SECTION) :].strip() == LIVE
        elif inside:
            yield line.split("\t")


def _views(gateway: str, text: str) -> Iterable[tuple[str, GatewayView]]:
    """Nothing for a gateway that does not answer, or was made before gateways told this."""
    try:
        found = json.loads(text)["members"]
        return [
            (str(one["name"]), GatewayView(gateway, one["pool"], one["health"], one["drained"], one["in_flight"]))
            for one in found
        ]
    except (ValueError, KeyError, TypeError):
        return []

"""gpus.json of a lab host, from the card models in lab/cards.toml."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

CARDS_FILE = Path(__file__).resolve().parents[2] / "cards.toml"

# Branch 580 is the last one for Volta and Pascal; its CUDA version is 13.0 (NVIDIA data-centre driver page).
DRIVER_VERSION = "580.173.02"
CUDA_VERSION = "13.0"

# Bus addresses as a two-socket server shows them, one per slot.
BUSES = ("1A", "3B", "5E", "86", "AF", "D8", "DA", "DC")


def read_cards() -> dict[str, dict[str, Any]]:
    """Card models by name."""
    return tomllib.loads(CARDS_FILE.read_text(encoding="utf-8"))


def gpus_json(host: dict[str, Any]) -> str:
    """The text of /etc/lab-gpu/gpus.json for a host entry {"name", "gpus": [{"card", "uuid"}, ...]}.

    Raises ValueError naming host, card and the known cards when a card is unknown.
    """
    cards = read_cards()
    gpus = []
    for index, slot in enumerate(host.get("gpus", [])):
        if slot["card"] not in cards:
            known = ", ".join(sorted(cards))
            raise ValueError(
                f"host {host.get('name')}: GPU {index}: unknown card {slot['card']!r}; lab/cards.toml has {known}"
            )
        gpus.append(
            {
                "index": index,
                "uuid": slot["uuid"],
                "serial": str(1320118000000 + int(slot["uuid"].replace("GPU-", "").replace("-", "")[:6], 16)),
                "bus_id": f"00000000:{BUSES[index % len(BUSES)]}:00.0",
                **cards[slot["card"]],
            }
        )
    driver = host.get("driver_version", DRIVER_VERSION)
    machine = {"driver_version": driver, "cuda_version": host.get("cuda_version", CUDA_VERSION), "gpus": gpus}
    return json.dumps(machine, indent=1) + "\n"

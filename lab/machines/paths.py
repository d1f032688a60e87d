"""Where the lab keeps things on this computer."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "lab"

STATE = Path("/var/lib/stoker-lab")
RUN = Path("/run/stoker-lab")
LOGS = Path("/var/log/stoker-lab")
LOCK = Path("/run/stoker-lab.lock")

HOME = STATE / "home"
"""HOME of every command run by lab/run."""

UP_MARKER = RUN / "up"
"""Written when the lab is up: the checkout that started it, and the start of the computer during which it did."""


def cache() -> Path:
    """What survives lab/down: images, packages, the registry's content. Set STOKER_LAB_CACHE to put it elsewhere."""
    return Path(os.environ.get("STOKER_LAB_CACHE") or "/var/cache/stoker-lab")

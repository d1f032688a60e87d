"""The cards' memory while engines load: one nvidia-smi that repeats itself for a minute, and what it printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

REPEAT_SECONDS = 3
#: It ends by itself then, whoever has gone; the next look starts another.
LIFE_SECONDS = 60

# nvidia-smi (driver 580) about a card that is gone. Not the mismatch of driver and library: what runs goes on with that.
_GONE = re.compile(
    r"GPU is lost|fallen off the bus|requires reset|Unknown Error|Unable to determine the device handle|"
    r"No devices were found|couldn't communicate with the NVIDIA driver"
)

#: Starting nvidia-smi costs as much as all the rest of a look, repeating it inside one process next to nothing.
SAMPLES = f"""
samples() {{
  command -v nvidia-smi >/dev/null || return
  f=$D/cards p=
  [ -r "$f.pid" ] && read -r p <"$f.pid"
  [ -n "$p" ] && kill -0 "$p" 2>/dev/null || {{
    setsid timeout {LIFE_SECONDS} nvidia-smi --query-gpu=uuid,memory.used,memory.total --format=csv,noheader,nounits -l {REPEAT_SECONDS} \\
 >"$f" 2>&1 </dev/null &
    echo $! >"$f.pid"
  }}
  tail -n 40 "$f"
  printf '\\n%s cards 0\\n' "$B"
}}
""".strip()


@dataclass(frozen=True, slots=True)
class CardsSeen:
    """Used and total memory in MiB by UUID, and nvidia-smi's last words when they were of a card that is gone."""

    memory: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    trouble: str = ""


def is_gone(said: str) -> bool:
    """Does nvidia-smi speak of a card that is gone?"""
    return bool(_GONE.search(said))


def read_samples(text: str) -> CardsSeen:
    """The newest figures of each card."""
    memory, trouble = {}, ""
    for line in filter(None, map(str.strip, text.splitlines())):
        match [part.strip() for part in line.split(",")]:
            case [uuid, used, total] if uuid.startswith("GPU-"):
                trouble = ""
                if used.isdigit() and total.isdigit():
                    memory[uuid] = int(used), int(total)
            case _:
                trouble = line if is_gone(line) else trouble
    return CardsSeen(memory, trouble)

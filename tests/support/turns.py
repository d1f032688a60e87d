"""Who had the turn on which GPU, read from the containers' own lines."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from support.commands import wait_for
from support.machine import Machine

#: Instances of the default fleet by the card that they share.
CARDS = {
    "GPU 0": ("vllm_llama_gpu0_0", "vllm_llama_gpu0_1"),
    "GPU 1": ("vllm_llama_gpu1_0", "vllm_llama_gpu1_1"),
    "GPU 2": ("vllm_qwen_gpu2",),
}
ENGINES = {name: 11401 + number for number, name in enumerate(name for names in CARDS.values() for name in names)}

#: Docker stamps a line when it reads it, each container's by itself: of two lines at nearly the same time the later may have the earlier stamp.
STAMP_SECONDS = 0.1


@dataclass(frozen=True, order=True)
class Turn:
    """A start's time on its GPU, by Docker's time stamps (RFC 3339, so they sort as text). ``end`` is empty while it lasts."""

    begin: str
    end: str
    name: str

    def before(self, other: Turn) -> bool:
        """Whether it was over when the other began."""
        end, begin = (datetime.fromisoformat(stamp).timestamp() for stamp in (self.end, other.begin))
        return end <= begin + STAMP_SECONDS


def now(host: Machine) -> str:
    """The host's time as Docker writes it."""
    return host.sh("date -u +%Y-%m-%dT%H:%M:%S.%NZ").strip()


def turns(host: Machine, since: str, names: tuple[str, ...]) -> list[Turn]:
    """The turns of some containers after a moment, in order."""
    script = "; ".join(f"echo '@ {name}'; docker logs --timestamps --since {since} {name} 2>&1" for name in names)
    found: list[Turn] = []
    name, begin = "", ""
    for line in host.sh(script).splitlines():
        if line.startswith("@ "):
            if begin:
                found.append(Turn(begin, "", name))
            name, begin = line[2:], ""
        elif match := re.match(r"(\S+) stoker: (GPU lock taken|engine answers, GPU lock released|engine ended)", line):
            if match[2] == "GPU lock taken":
                if begin:  # killed in its turn, and started anew
                    found.append(Turn(begin, "", name))
                begin = match[1]
            elif begin:
                found.append(Turn(begin, match[1], name))
                begin = ""
    return sorted([*found, Turn(begin, "", name)] if begin else found)


def wait_until_served(host: Machine, seconds: float = 60) -> None:
    """Every engine of gpu10 answers, and its turn is over."""
    asks = " && ".join(f"curl -sf -m 2 -o /dev/null http://127.0.0.1:{port}/health" for port in ENGINES.values())
    wait_for(f"every engine of {host.name} answers", lambda: host.holds(asks), seconds)


def assert_one_at_a_time(host: Machine, since: str, cards: Iterable[str] = CARDS) -> None:
    """Since that moment every engine of the cards had exactly one turn, and on none did two overlap."""
    for card, names in ((card, CARDS[card]) for card in cards):
        found = wait_for(
            f"the turns on {card} of {host.name} are over",
            lambda names=names: (
                (t := turns(host, since, names)) and len(t) >= len(names) and all(one.end for one in t) and t
            ),
        )
        assert sorted(turn.name for turn in found) == sorted(names), found
        for one, other in itertools.pairwise(found):
            assert one.before(other), f"two engines loaded at once on {card}: {found}"

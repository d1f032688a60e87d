"""Engine profiles: builds of one engine that differ in what they run on, and so in what is checked before and after a start.

The default of an engine is its build for NVIDIA cards. Another one is chosen for the whole fleet by `profiles` in group_data. A new
profile is a row of PROFILES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Engine = Literal["vllm", "ollama"]
ProfileName = Literal["vllm-cuda", "vllm-cpu", "ollama-cuda"]


@dataclass(frozen=True)
class HostMemory:
    """What an engine takes of the machine's own memory, GiB: its processes, and a cache whose size a variable sets."""

    processes_gib: float
    cache_variable: str
    #: Cache without the variable in the description: what the image itself sets.
    cache_gib: float

    def of(self, environment: Mapping[str, str]) -> float:
        """GiB of one instance with this environment. An unreadable size counts as the default; the engine refuses it."""
        given = environment.get(self.cache_variable, "")
        return self.processes_gib + (float(given) if given.isdigit() else self.cache_gib)


@dataclass(frozen=True)
class Profile:
    """One build of an engine."""

    engine: Engine
    #: On which hardware it runs and since which version that is known, for people.
    runs_on: str
    #: How a container proves on the host that it can use a card: by torch, by nvidia-smi; None where there is nothing to prove.
    card_proof: Literal["torch", "nvidia-smi"] | None
    #: Said where the proof, or the card's memory, would stand.
    not_applicable: str = ""
    #: Size of /dev/shm that one engine on one card needs; empty: Docker's 64 MiB do.
    shared_memory: str = ""
    #: None: it takes the memory of its cards.
    host_memory: HostMemory | None = None

    @property
    def uses_cards(self) -> bool:
        return self.card_proof is not None


PROFILES: Mapping[ProfileName, Profile] = {
    # shared cards, one start at a time; gpu-memory-utilization is a share of the card (vLLM 0.19.1, v1/worker/utils.py)
    "vllm-cuda": Profile("vllm", "NVIDIA cards; the image's own torch decides which (proved on the host)", "torch"),
    # Measured with vLLM 0.32.0: 1.55 GiB for the three processes of an engine, and the cache (whole GiB) is touched at the start.
    "vllm-cpu": Profile(
        "vllm",
        "x86_64 processors with AVX2 (vLLM for CPU, tried: 0.32.0)",
        None,
        "not applicable: CPU build",
        # 160 MiB are asked for at the start: this build always has a worker process of its own (0.32.0).
        "1gb",
        HostMemory(1.7, "VLLM_CPU_KVCACHE_SPACE", 1),
    ),
    "ollama-cuda": Profile("ollama", "NVIDIA cards from compute capability 5.0 (Ollama 0.32)", "nvidia-smi"),
}

DEFAULTS: Mapping[Engine, ProfileName] = {"vllm": "vllm-cuda", "ollama": "ollama-cuda"}

"""Bare hosts to smoke passed: the wall time, and how much of it is not the loading of models.

    .venv/bin/python -m benchmarks.from_bare

Makes both hosts of the lab bare first (lab/up --fresh).
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.lab import ROOT, answered, in_lab, started, write

HOST = "192.168.31.10"
ENGINES = ("vllm_llama_gpu0_0", "vllm_llama_gpu0_1", "vllm_llama_gpu1_0", "vllm_llama_gpu1_1", "vllm_qwen_gpu2")


def main() -> None:
    subprocess.run([ROOT / "lab/up", "--fresh"], check=True, stdout=sys.stderr)
    begun = time.time()
    in_lab("stoker", "deploy", "--yes")
    deployed = time.time()
    in_lab("stoker", "smoke")
    ended = time.time()
    loading = union([(started(HOST, name), answered(HOST, name)) for name in ENGINES])
    write(
        "from_bare",
        {
            "total_seconds": round(ended - begun, 1),
            "deploy_seconds": round(deployed - begun, 1),
            "smoke_seconds": round(ended - deployed, 1),
            # From a vLLM container's start to its first answer; times at which several load count once.
            "loading_seconds": round(loading, 1),
            "not_loading_seconds": round(ended - begun - loading, 1),
        },
    )


def union(intervals: list[tuple[float, float]]) -> float:
    """The length of time that lies in at least one interval."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


if __name__ == "__main__":
    main()

"""A deploy that finds nothing to do: its wall time, and the SSH sessions that it opens on each host.

.venv/bin/python -m benchmarks.second_deploy
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from benchmarks.lab import in_lab, write

RUNS = 7


def main() -> None:
    in_lab("stoker", "deploy", "--yes")
    seconds = []
    for _ in range(RUNS):
        begun = time.monotonic()
        done = in_lab("stoker", "deploy", "--yes")
        seconds.append(time.monotonic() - begun)
        if "No changes" not in done.stderr:
            sys.exit(f"this deploy changed something, so it is not the one to measure:\n{done.stderr}")
    sessions = json.loads(in_lab("python", "-m", "benchmarks.count_sessions").stdout)
    write(
        "second_deploy",
        {
            "runs": RUNS,
            "min_seconds": round(min(seconds), 2),
            "median_seconds": round(statistics.median(seconds), 2),
            "max_seconds": round(max(seconds), 2),
            "ssh_sessions_per_host": sessions,
        },
    )


if __name__ == "__main__":
    main()

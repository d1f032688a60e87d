"""How soon a deploy notices: that an engine is ready, and that a container has died.

    .venv/bin/python -m benchmarks.readiness

Restarts one instance of the lab several times, kills it several times while it loads, and leaves it serving. The engine's log and Docker
say when it happened; the line of ``stoker deploy`` says when it was noticed. All machines of the lab share one clock.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time

from benchmarks.lab import ROOT, answered, in_lab, on_host, seconds_of, write

HOST, NAME = "192.168.31.10", "vllm_qwen_gpu2"
RUNS = 5
LIMIT_SECONDS = 120


def main() -> None:
    in_lab("stoker", "deploy", "--yes")
    ready = [noticed("ready") - answered(HOST, NAME) for _ in range(RUNS)]
    exits = [noticed("failed", kill=True) - died() for _ in range(RUNS)]
    in_lab("stoker", "deploy", "--yes")
    write("readiness", {"runs": RUNS, "ready_to_noticed": summary(ready), "exit_to_noticed": summary(exits)})


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median_seconds": round(statistics.median(seconds), 2), "max_seconds": round(max(seconds), 2)}


def noticed(verdict: str, kill: bool = False) -> float:
    """Restart the instance, wait for it with ``stoker deploy``, and return when the wait said its verdict.

    ``kill``: end the container as soon as the wait has said something of it.
    """
    on_host(HOST, f"docker restart -t 5 {NAME}")
    command = [str(ROOT / "lab/run"), "timeout", str(LIMIT_SECONDS), "stoker", "deploy", "--yes", "--only", NAME]
    said, when = [], 0.0
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if when or f"{NAME}: " not in line:
                continue
            if re.search(rf"{NAME}: {verdict}\b", line):
                when = time.time()
            elif kill:
                on_host(HOST, f"docker kill {NAME}", check=False)
                kill = False
    if not when:
        sys.exit(f"the wait did not say that {NAME} is {verdict}:\n{''.join(said)}")
    return when


def died() -> float:
    """When the container ended, by Docker."""
    return seconds_of(on_host(HOST, f"docker inspect -f '{{{{.State.FinishedAt}}}}' {NAME}").strip())


if __name__ == "__main__":
    main()

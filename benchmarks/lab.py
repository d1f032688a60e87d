"""What the measures share: commands in the lab, times of its containers, result files."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

#: What vLLM prints when it begins to answer (v0.19.1, uvicorn's line).
READY_LINE = "Application startup complete"


def in_lab(*command: str, seconds: float = 600, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command by lab/run. Ends the program with the command's last words when it fails, unless ``check`` is False."""
    try:
        done = subprocess.run(
            [ROOT / "lab/run", *command], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"{' '.join(command)}: no end after {seconds:.0f} s")
    if check and done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{last}")
    return done


def on_host(host: str, command: str, check: bool = True) -> str:
    """Standard output of a shell command on a host."""
    return in_lab("ssh", host, command, seconds=60, check=check).stdout


def started(host: str, container: str) -> float:
    """When the container's present start was, seconds since the epoch. All machines of the lab share one clock."""
    return seconds_of(on_host(host, f"docker inspect -f '{{{{.State.StartedAt}}}}' {container}").strip())


def answered(host: str, container: str) -> float:
    """When the engine's present start began to answer, by its log."""
    log = on_host(host, f"docker logs -t --since {started(host, container):.6f} {container} 2>&1")
    times = [line.split()[0] for line in log.splitlines() if READY_LINE in line]
    if not times:
        sys.exit(f"{container} on {host} has not printed {READY_LINE!r} since its start")
    return seconds_of(times[-1])


def seconds_of(timestamp: str) -> float:
    """Docker's RFC 3339 time with nanoseconds as seconds since the epoch."""
    return datetime.fromisoformat(timestamp).timestamp()


def write(name: str, result: Mapping[str, object]) -> None:
    """Print the result, and keep it as JSON with when and on what it was measured."""
    RESULTS.mkdir(exist_ok=True)
    about = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}, lab with simulated GPUs and engines",
    }
    text = json.dumps({**about, **result}, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
    print(text, end="")

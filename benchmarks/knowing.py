"""What is known before anything is touched: the time of the memory plan, of the preflight and of the doctor.

.venv/bin/python -m benchmarks.knowing
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.lab import ROOT, in_lab, write

RUNS = 11
HOSTS = 50

#: As many of each kind; no host is contacted.
_MANY = "llm = [f'10.0.0.{{n}}' for n in range({half})]\nembedding = [f'10.0.1.{{n}}' for n in range({half})]\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "inventory.py"
        many.write_text(_MANY.format(half=HOSTS // 2), encoding="utf-8")
        (Path(folder) / "group_data").symlink_to(ROOT / "group_data")
        plan = _median(lambda: _plan())
        of_many = _median(lambda: _plan("-i", str(many)))
    in_lab("stoker", "deploy", "--yes")
    preflight = _median(lambda: in_lab("stoker", "deploy", "--check"))
    doctor = _median(lambda: in_lab("stoker", "doctor", "--json"))
    write(
        "knowing",
        {
            "runs": RUNS,
            "plan_median_seconds": plan,
            "plan_hosts": HOSTS,
            "plan_of_many_median_seconds": of_many,
            "check_of_two_hosts_median_seconds": preflight,
            "doctor_of_two_hosts_median_seconds": doctor,
            "doctor_checks": len(json.loads(in_lab("stoker", "doctor", "--json").stdout)["checks"]),
        },
    )


def _median(run: Callable[[], object]) -> float:
    """Seconds of wall time, the start of Python included; the first run is not counted."""
    seconds = []
    for _ in range(RUNS + 1):
        begun = time.monotonic()
        run()
        seconds.append(time.monotonic() - begun)
    return round(statistics.median(seconds[1:]), 2)


def _plan(*options: str) -> None:
    done = subprocess.run(
        [ROOT / ".venv/bin/stoker", "plan", "--json", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode or json.loads(done.stdout)["verdict"] == "refuse":
        sys.exit(f"stoker plan {' '.join(options)}: exit status {done.returncode}\n{done.stderr}")


if __name__ == "__main__":
    main()

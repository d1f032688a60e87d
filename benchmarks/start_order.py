"""What the order of starts on a GPU costs, and what it saves: both engines of a card killed at once, with the order and without it.

    .venv/bin/python -m benchmarks.start_order

Kills and reboots gpu10 of the lab, several times, and leaves it serving. Simulated engines that load at the same time on one card mis-measure
its memory as vLLM v0.19.1 does. Without the order means: gpu-turn.py on the host is a program that only starts the engine.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import time

from benchmarks.lab import ROOT, in_lab, on_host, write

HOST, NAME = "192.168.31.10", "gpu10"
PAIR = {"vllm_llama_gpu0_0": 11401, "vllm_llama_gpu0_1": 11402}
ENGINES = {**PAIR, "vllm_llama_gpu1_0": 11403, "vllm_llama_gpu1_1": 11404, "vllm_qwen_gpu2": 11405}
KILLS, KILLS_WITHOUT, REBOOTS = 20, 5, 3
#: Kills in a row: Docker pauses before it starts a container again, twice as long each time, until one is started by hand.
IN_A_ROW = 4
LOAD_SECONDS = 1.5
LIMIT_SECONDS = 120
#: What an engine of v0.19.1 prints when its start fails.
FAILED = "EngineCore failed to start"

PROGRAM = "/opt/stoker/bin/gpu-turn.py"
NO_ORDER = "import os, sys; engine = sys.argv[sys.argv.index('--') + 1 :]; os.execvp(engine[0], engine)"


def main() -> None:
    in_lab("stoker", "deploy", "--yes")
    on_host(HOST, f"""printf '{{"load_seconds": {LOAD_SECONDS}}}' >/etc/lab-gpu/engine.json""")
    ordered = killed(KILLS)
    reboots = [rebooted() for _ in range(REBOOTS)]
    on_host(HOST, f"cp -p {PROGRAM} {PROGRAM}.kept && echo {shlex.quote(NO_ORDER)} >{PROGRAM}")
    try:
        unordered = killed(KILLS_WITHOUT)
    finally:
        on_host(HOST, f"mv {PROGRAM}.kept {PROGRAM}; rm /etc/lab-gpu/engine.json; {again(*PAIR)}")
        in_lab("stoker", "deploy", "--yes")
    write(
        "start_order",
        {
            "load_seconds": LOAD_SECONDS,
            "pair_killed_with_order": summary(ordered),
            "host_rebooted_with_order": summary(reboots),
            "pair_killed_without_order": summary(unordered),
        },
    )


def summary(rounds: list[tuple[float, int]]) -> dict[str, float]:
    """Of (seconds until all answer, starts that failed) a round."""
    return {
        "rounds": len(rounds),
        "failed_starts": sum(failed for _, failed in rounds),
        "median_seconds": round(statistics.median(seconds for seconds, _ in rounds), 1),
        "max_seconds": round(max(seconds for seconds, _ in rounds), 1),
    }


def again(*names: str) -> str:
    """Shell: start engines by hand, at once."""
    return " ".join(f"docker restart -t 5 {name} >/dev/null &" for name in names) + " wait"


def killed(times: int) -> list[tuple[float, int]]:
    """Kill both engines of the card at once, again and again."""
    rounds = []
    for number in range(times):
        if number % IN_A_ROW == 0:
            on_host(HOST, again(*PAIR))
            _until_all_answer(PAIR)
        since = on_host(HOST, "date -u +%Y-%m-%dT%H:%M:%S.%NZ").strip()
        begun = time.monotonic()
        on_host(HOST, f"kill -9 $(docker inspect -f '{{{{.State.Pid}}}}' {' '.join(PAIR)})")
        _until_all_answer(PAIR)
        rounds.append((time.monotonic() - begun, _failures(PAIR, since)))
    return rounds


def rebooted() -> tuple[float, int]:
    since = on_host(HOST, "date -u +%Y-%m-%dT%H:%M:%S.%NZ").strip()
    begun = time.monotonic()
    subprocess.run([ROOT / "lab/reboot", NAME], check=True, capture_output=True)
    _until_all_answer(ENGINES)
    return time.monotonic() - begun, _failures(ENGINES, since)


def _until_all_answer(engines: dict[str, int]) -> None:
    asks = " && ".join(f"curl -sf -m 2 -o /dev/null http://127.0.0.1:{port}/health" for port in engines.values())
    limit = time.monotonic() + LIMIT_SECONDS
    while in_lab("ssh", HOST, asks, seconds=60, check=False).returncode:
        if time.monotonic() > limit:
            sys.exit(f"not all of {', '.join(engines)} answer after {LIMIT_SECONDS} s")
        time.sleep(0.2)


def _failures(engines: dict[str, int], since: str) -> int:
    logs = "; ".join(f"docker logs --since {since} {name} 2>&1" for name in engines)
    return on_host(HOST, logs).count(FAILED)


if __name__ == "__main__":
    main()

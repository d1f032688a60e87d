"""How soon a deploy notices: that an engine is ready, and that a container has died. And what watching costs the host.

    .venv/bin/python -m benchmarks.readiness

Restarts one instance of the lab several times, kills it several times while it loads, and leaves it serving. The engine's log and Docker
say when it happened; the line of ``stoker deploy`` says when it was noticed. All machines of the lab share one clock.

Then all engines of the host load slowly, for a while without and for a while with ``stoker wait``. systemd's accounting says what processor
time SSH sessions (all that the wait starts there) and Docker took meanwhile; the difference is what watching costs.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

from benchmarks.lab import ROOT, answered, in_lab, on_host, seconds_of, write

HOST, NAME = "192.168.31.10", "vllm_qwen_gpu2"
RUNS = 5
LIMIT_SECONDS = 120
WATCH_SECONDS = 60
#: Longer than both windows together: the first engine of each card loads in all of them.
LOAD_SECONDS = 4 * WATCH_SECONDS
#: Everything that an SSH session runs, with and without systemd's own sessions, and the Docker daemon with its proxies.
_CGROUPS = {"ssh": ("system.slice/ssh.service", "user.slice"), "docker": ("system.slice/docker.service",)}


def main() -> None:
    in_lab("stoker", "deploy", "--yes")
    ready = [noticed("ready") - answered(HOST, NAME) for _ in range(RUNS)]
    exits = [noticed("failed", kill=True) - died() for _ in range(RUNS)]
    in_lab("stoker", "deploy", "--yes")
    result = {"runs": RUNS, "ready_to_noticed": summary(ready), "exit_to_noticed": summary(exits)}
    cost = watching(("stoker", "wait", "--limit", HOST))
    in_lab("stoker", "wait")
    write("readiness", {**result, "watching_percent_of_a_core": cost})


def watching(command: tuple[str, ...]) -> dict[str, float]:
    """What ``command`` costs the host while its engines load, in percent of a core."""
    settings = "/etc/lab-gpu/engine.json"
    before = on_host(HOST, f"cat {settings} 2>/dev/null || echo '{{}}'")
    on_host(
        HOST,
        f"""printf '{{"load_seconds": {LOAD_SECONDS}}}' >{settings}; docker restart -t 1 $(docker ps -q) >/dev/null""",
    )
    try:
        _until_loading()
        alone = _window()
        with subprocess.Popen(
            [str(ROOT / "lab/run"), *command], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stderr is not None
            process.stderr.readline()  # the first look is done; what it costs is no part of the watching
            watched = _window()
            process.terminate()
    finally:
        on_host(HOST, f"printf '%s' '{before.strip()}' >{settings}; docker restart -t 1 $(docker ps -q) >/dev/null")
    cost = {name: round(watched[name] - alone[name], 2) for name in _CGROUPS}
    return {**cost, "all": round(sum(cost.values()), 2), "window_seconds": WATCH_SECONDS}


def _until_loading() -> None:
    """The first engine of each card loads: from now on they are quiet."""
    cards = on_host(HOST, "nvidia-smi -L | wc -l").strip()
    loads = (
        "docker logs --since $(docker inspect -f '{{.State.StartedAt}}' $c) $c 2>&1 | grep -c 'Starting to load model'"
    )
    begun = f"n=0; for c in $(docker ps -q); do n=$((n + $({loads}))); done; test $n -ge {cards}"
    on_host(HOST, f"i=0; until {begun}; do i=$((i+1)); test $i -lt {LIMIT_SECONDS} || exit 1; sleep 1; done")


def _window() -> Mapping[str, float]:
    """Percent of a core that each of the groups takes in a while from now."""
    begun, used = time.monotonic(), _used()
    time.sleep(WATCH_SECONDS)
    then = _used()
    passed = time.monotonic() - begun
    return {name: 100 * (then[name] - used[name]) / passed for name in _CGROUPS}


def _used() -> dict[str, float]:
    """Seconds of processor time of each group since the host was started."""
    paths = {name: [f"/sys/fs/cgroup/{path}/cpu.stat" for path in paths] for name, paths in _CGROUPS.items()}
    output = on_host(
        HOST,
        f"grep -H usage_usec {' '.join(path for each in paths.values() for path in each)} 2>/dev/null",
        check=False,
    )
    found = {path: int(value) / 1e6 for path, value in re.findall(r"^(\S+):usage_usec (\d+)$", output, re.MULTILINE)}
    return {name: sum(found.get(path, 0.0) for path in each) for name, each in paths.items()}


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

"""How soon readiness notices: a ready engine, and a dead container.

    lab/run python benchmarks/readiness_notice.py [--host root@192.168.31.10] [--container vllm_qwen_gpu2] [--times 5]

Restarts the container, so it is for the lab. Over SSH, as a deploy looks. The moments come from the host: the time
of the engine's line "Application startup complete." in Docker's log, and Docker's FinishedAt.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from stoker.ready import Outcome, RunResult, Target, Verdict, wait_ready


class Silent:
    """A board that shows nothing."""

    def join(self, targets: Sequence[Target]) -> None: ...
    def show(self, views: object) -> None: ...
    def leave(self, outcomes: Sequence[Outcome]) -> None: ...


class Remote:
    """Commands over one SSH connection."""

    def __init__(self, host: str, directory: str) -> None:
        self.command = [
            "ssh",
            "-o",
            "ControlMaster=auto",
            "-o",
            f"ControlPath={directory}/%C",
            "-o",
            "ControlPersist=60",
            host,
        ]
        self.looks = 0

    def run(self, script: str) -> RunResult:
        self.looks += 1
        done = subprocess.run([*self.command, script], capture_output=True, text=True, check=False)
        return RunResult(done.returncode, done.stdout, done.stderr)

    def text(self, script: str) -> str:
        return self.run(script).stdout.strip()


def seconds(docker_time: str) -> float:
    whole, _, rest = docker_time.rstrip("Z").partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{rest or 0}")


def ready_after(remote: Remote, target: Target) -> float:
    """Seconds from the engine's own last word to the verdict."""
    remote.text(f"docker restart {target.container}")
    time.sleep(random.uniform(0.0, 0.5))  # so that the looks fall anywhere in the load
    (outcome,) = wait_ready(remote.run, [target], Silent(), timeout_seconds=600)
    now = time.time()
    assert outcome.ok, outcome.report()
    begun = remote.text(f"docker inspect -f '{{{{.State.StartedAt}}}}' {target.container}")
    line = remote.text(
        f"docker logs -t --since {begun} {target.container} 2>&1 | grep 'Application startup complete' | tail -n 1"
    )
    return now - seconds(line.split()[0])


def dead_after(remote: Remote, target: Target) -> float:
    """Seconds from the container's exit to the verdict."""
    remote.text(f"docker restart {target.container}")
    killer = threading.Timer(random.uniform(0.1, 0.8), remote.text, [f"docker kill {target.container}"])
    killer.start()
    (outcome,) = wait_ready(remote.run, [target], Silent(), timeout_seconds=600)
    now = time.time()
    killer.join()
    assert outcome.verdict is Verdict.FAILED, outcome.report()
    return now - seconds(remote.text(f"docker inspect -f '{{{{.State.FinishedAt}}}}' {target.container}"))


def told(name: str, figures: list[float], aim: str) -> None:
    print(f"{name}: mean {statistics.mean(figures):.2f} s, most {max(figures):.2f} s of {len(figures)} (aim: {aim})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="root@192.168.31.10")
    parser.add_argument("--container", default="vllm_qwen_gpu2")
    parser.add_argument("--port", type=int, default=11405)
    parser.add_argument("--model", default="qwen2.5-14b")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    target = Target(options.host, options.container, "vllm", options.container, options.port, options.model)
    with tempfile.TemporaryDirectory() as directory:
        remote = Remote(options.host, directory)
        told("ready engine noticed after", [ready_after(remote, target) for _ in range(options.times)], "1 s")
        told(
            "dead container noticed after",
            [dead_after(remote, target) for _ in range(options.times)],
            "5 s of its exit",
        )
        remote.text(f"docker start {target.container}")
        (outcome,) = wait_ready(remote.run, [target], Silent(), timeout_seconds=600)
        print(outcome.report())
        subprocess.run([*remote.command[:1], "-O", "exit", *remote.command[1:]], capture_output=True, check=False)


if __name__ == "__main__":
    main()

"""Machines that run only when nothing else wants this computer's processors.

An engine that computes on the CPU keeps them busy without a rest. On two cores and Linux 6.18 five real vLLM servers kept a process of
this computer that only wanted to wake up every 20 ms waiting for 2.4 s, also with a small weight (cpu.shares); as an idle group
(cpu.idle, Linux 5.15 and later) they do not delay anything. Where the kernel has no such file, all goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def make_idle(pid: int, identity: str, proc: Path = Path("/proc")) -> bool:
    """Put the container `identity`, whose first process is `pid`, behind everything else. False where that cannot be done."""
    for file in _files(pid, identity, proc):
        try:
            file.write_text("1")
        except OSError:
            continue
        return True
    return False


def _files(pid: int, identity: str, proc: Path) -> Iterator[Path]:
    """The container's cpu.idle, below the hierarchy that has the cpu controller (cgroup v1) or the only one (v2)."""
    mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
    for line in (proc / str(pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        # systemd in the container moves itself further down (v2).
        group = path[: path.find(identity) + len(identity)] if identity in path else path
        for _, folder, kind, options, *_ in mounts:
            v1 = kind == "cgroup" and "cpu" in controllers.split(",") and "cpu" in options.split(",")
            if (v1 or (kind == "cgroup2" and not controllers)) and (
                file := Path(folder) / group.lstrip("/") / "cpu.idle"
            ).exists():
                yield file

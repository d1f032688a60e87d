"""The programs of the comparison, unpacked from Debian; nothing is installed. And what their processes use of the machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.internet.aptroot import AptRoot
from lab.internet.shell import BuildError, run

CACHE_DEFAULT = "/var/cache/stoker-lab"
#: Debian's release with the nginx and njs that the gateway needs.
RELEASE = "forky"
PACKAGES = ("nginx", "libnginx-mod-http-js", "haproxy", "wrk")

#: The proxies have one core, what loads them and what they pass to has the other.
PROXY_CORE, LOAD_CORE = 0, 1

#: A process sees its files under /bench, and a /run and a /tmp of its own.
_ENTER = """
set -e
root=$1 files=$2; shift 2
mount --bind "$files" "$root/bench"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
exec chroot "$root" "$@"
"""

_TREE_DIRECTORIES = (
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib64",
    "etc",
    "run",
    "tmp",
    "proc",
    "dev",
    "bench",
    "var/lib/nginx",
)


def tree() -> Path:
    """The directory with the unpacked programs; made once a machine. Ends the program with what is missing."""
    if os.geteuid() != 0:
        sys.exit("the measure runs its programs in a chroot, which needs root")
    if (os.cpu_count() or 1) < 2:
        sys.exit("the measure needs two cores: one for the proxies, one for the load")
    cache = Path(os.environ.get("STOKER_LAB_CACHE", CACHE_DEFAULT))
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / f"bench-{RELEASE}"
    with (cache / f"bench-{RELEASE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            try:
                _make(root)
            except BuildError as error:
                sys.exit(f"the programs of the measure could not be had from this machine's Debian mirror:\n{error}")
    return root


def _make(root: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=root.parent))
    try:
        made = work / "root"
        for directory in _TREE_DIRECTORIES:
            (made / directory).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (made / name).symlink_to(f"usr/{name}")
        (made / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        (made / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        for package in AptRoot(RELEASE, work / "apt", work / "archives").closure(list(PACKAGES)):
            run(["dpkg-deb", "--extract", package.file, made])
        made.rename(root)
    finally:
        shutil.rmtree(work)


def inside(files: Path, *command: str) -> list[str]:
    """A command line that runs a program of the tree, with ``files`` as its /bench. No process stands between."""
    enter = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _ENTER, "in-chroot"]
    return [*enter, str(tree()), str(files), *command]


def version(*command: str) -> str:
    """The first version number that a program prints."""
    with tempfile.TemporaryDirectory() as files:
        done = subprocess.run(inside(Path(files), *command), capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+(?:-\d+)?", done.stdout + done.stderr)
    return found[0] if found else "unknown"


# --- processes ---


@dataclass(frozen=True)
class Started:
    """A running program and its children."""

    process: subprocess.Popen[bytes]

    def tree(self) -> list[int]:
        found, new = [], [self.process.pid]
        while new:
            pid = new.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                new += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far, from the scheduler (nanoseconds; Linux, sched-stats.rst)."""
        spent = 0
        for pid in self.tree():
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    spent += int(file.read_text().split()[0])
        return spent / 1e9

    def go_first(self, first: bool) -> None:
        """Before all programs without real-time priority, or as any other."""
        policy = (os.SCHED_FIFO, os.sched_param(1)) if first else (os.SCHED_OTHER, os.sched_param(0))
        for pid in self.tree():
            with contextlib.suppress(OSError):
                os.sched_setscheduler(pid, *policy)

    def resident_kib(self) -> int:
        """Resident memory of its processes; pages that they share count for each."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                total += int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text() or "VmRSS: 0")[0])
        return total


@contextlib.contextmanager
def running(command: Sequence[str], core: int, port: int, log: Path, patience: float = 20) -> Iterator[Started]:
    """A program on one core, from when it listens on its port until the end of the block."""
    with log.open("wb") as said:
        process = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=said)
    started = Started(process)
    try:
        end = time.monotonic() + patience
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(command[-4:])} does not listen on {port}: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield started
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def machine_busy_seconds() -> float:
    """CPU time that the whole machine has spent so far."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

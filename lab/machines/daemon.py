"""The lab's own containerd and dockerd: nothing of a Docker that the computer may already run is read, used or changed.

Both have their own state, socket, configuration file and pid file. dockerd has no bridge and touches no firewall:
the machines get their network from lab.machines.network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from lab.machines import processes
from lab.machines.errors import LabError
from lab.machines.paths import LOGS, RUN, STATE
from lab.machines.shell import run

SOCKET = RUN / "docker.sock"
DOCKER_HOST = f"unix://{SOCKET}"
DATA = STATE / "docker"
START_SECONDS = 60
STOP_SECONDS = 30

CONTAINERD_SOCKET = RUN / "containerd.sock"
CONTAINERD_CONFIG = RUN / "containerd.toml"
CONTAINERD_PID = RUN / "containerd.pid"
DOCKERD_CONFIG = RUN / "dockerd.json"
DOCKERD_PID = RUN / "dockerd.pid"

# Kernel modules that Docker inside the machines needs: a machine has no /lib/modules to load them from.
# On a kernel with these built in there is nothing to load.
MODULES = (
    "overlay", "bridge", "veth", "br_netfilter", "nf_nat", "nf_tables", "nft_compat", "nft_chain_nat",
    "xt_addrtype", "xt_conntrack", "xt_MASQUERADE", "iptable_nat", "iptable_filter", "ip6table_nat", "ip6table_filter",
)  # fmt: skip


def docker(
    *arguments: str, what: str = "", check: bool = True, timeout: float | None = 120
) -> subprocess.CompletedProcess[str]:
    """Run the docker client against the lab's daemon."""
    return run([client(), *arguments], what=what, env={"DOCKER_HOST": DOCKER_HOST}, check=check, timeout=timeout)


def docker_input(data: bytes, *arguments: str, what: str) -> None:
    """Run the docker client with `data` as its input."""
    run([client(), *arguments], what=what, env={"DOCKER_HOST": DOCKER_HOST}, stdin=data, timeout=120)


def client() -> str:
    """The docker client that was packaged with the daemon; another version in front of it in PATH may be too new for it."""
    beside = Path("/usr/bin/docker")
    return str(beside) if beside.exists() else "docker"


def running() -> bool:
    """Whether the lab's dockerd lives and answers."""
    if processes.owned_pid(DOCKERD_PID, str(DATA)) is None:
        return False
    return docker("version", "--format", "{{.Server.Version}}", check=False).returncode == 0


def start() -> None:
    """Start both daemons, unless they run. Raises LabError with the end of the log."""
    if running():
        return
    stop()
    RUN.mkdir(parents=True, exist_ok=True)
    DATA.mkdir(parents=True, exist_ok=True)
    _load_modules()
    _start_containerd()
    _start_dockerd()


def stop() -> None:
    """End both daemons, by their pids, and take away what a killed one may have left behind."""
    for pid_file, mark in ((DOCKERD_PID, str(DATA)), (CONTAINERD_PID, str(CONTAINERD_CONFIG))):
        pid = processes.owned_pid(pid_file, mark)
        if pid is not None:
            processes.stop(pid, STOP_SECONDS)
        pid_file.unlink(missing_ok=True)
    for socket in (SOCKET, CONTAINERD_SOCKET):
        socket.unlink(missing_ok=True)
    _unmount_below(RUN, STATE)


def _start_containerd() -> None:
    CONTAINERD_CONFIG.write_text(
        f"""version = 2
root = "{STATE}/containerd"
state = "{RUN}/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
"""
    )
    argv = [_program("containerd"), "--config", str(CONTAINERD_CONFIG)]
    log = LOGS / "containerd.log"
    process = processes.start(argv, log, CONTAINERD_PID)
    _wait_for(process, CONTAINERD_SOCKET.is_socket, "containerd", log)


def _start_dockerd() -> None:
    # A configuration file of our own: without one dockerd reads /etc/docker/daemon.json, which is the person's.
    DOCKERD_CONFIG.write_text(json.dumps({"storage-driver": "overlay2", "exec-opts": ["native.cgroupdriver=cgroupfs"]}))
    argv = [
        _program("dockerd"),
        f"--config-file={DOCKERD_CONFIG}",
        f"--data-root={DATA}",
        f"--exec-root={RUN}/docker-exec",
        f"--containerd={CONTAINERD_SOCKET}",
        f"--host={DOCKER_HOST}",
        f"--pidfile={RUN}/docker.pid",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
    ]
    (RUN / "docker.pid").unlink(missing_ok=True)
    log = LOGS / "dockerd.log"
    process = processes.start(argv, log, DOCKERD_PID)
    _wait_for(process, lambda: SOCKET.is_socket() and running(), "dockerd", log)


def _wait_for(process: subprocess.Popen[bytes], ready: Callable[[], bool], name: str, log: Path) -> None:
    processes.wait_until(lambda: process.poll() is not None or ready(), START_SECONDS)
    if process.poll() is None and ready():
        return
    ended = f"ended with exit code {process.returncode}" if process.returncode is not None else "does not answer"
    said = log.read_text(errors="replace").splitlines()[-6:]
    raise LabError(f"{name} {ended}; the end of {log}:\n    " + "\n    ".join(said))


def _load_modules() -> None:
    modprobe = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if modprobe and Path("/lib/modules").is_dir():
        run([modprobe, "--quiet", "--all", *MODULES], check=False)


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if not found:
        raise LabError(f"the program {name} is not installed; it comes with Debian's package docker.io")
    return found


def _unmount_below(*directories: Path) -> None:
    """Unmount what is mounted below the lab's own directories, the deepest first."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    prefixes = tuple(f"{directory}/" for directory in directories)
    for target in sorted((target for target in mounts if target.startswith(prefixes)), reverse=True):
        run(["umount", "--lazy", target], check=False)

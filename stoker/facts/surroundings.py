"""What a host has beside what Stoker puts there, as the probe prints it: other Dockers, packages, guards. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class DockerInfo:
    """What the daemon says of itself. Empty where none answers."""

    root: str = ""  #: its data-root
    containerd_store: bool = False  #: images lie with containerd, not below the data-root
    rootless: bool = False


@dataclass(frozen=True)
class Dockers:
    """The programs and daemons that could be taken for Docker."""

    path: str = ""  #: the program that the shell finds
    is_podman: bool = False
    rootless_users: tuple[str, ...] = ()  #: whose own daemon has a socket
    #: Compose programs that people put there themselves: path -> version. As plugins they go before the package's.
    composes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Packaging:
    """The package manager's own state."""

    unfinished: tuple[str, ...] = ()  #: packages that are half installed, and the journal of an interrupted dpkg
    lock_holder: str = ""  #: ``apt-get (process 17)``
    #: Lines of apt's sources that name one of our repositories, or say how such a file is signed: (file, line).
    sources: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Guards:
    """What the kernel enforces. None: it is not known."""

    selinux_enforcing: bool = False
    apparmor: bool = False  #: the kernel has it switched on
    apparmor_parser: bool = False  #: without this program no profile can be loaded
    userns_restricted: bool = False  #: AppArmor keeps users' own programs from making user namespaces
    cgroup_version: int = 0  #: 0: not known
    secure_boot: bool | None = None
    nouveau: bool = False  #: the kernel's own driver for NVIDIA cards is loaded


def docker_info(line: str) -> DockerInfo:
    try:
        said = json.loads(line)
        return DockerInfo(
            said["DockerRootDir"],
            any("io.containerd.snapshotter" in str(value) for _, value in said["DriverStatus"] or ()),
            "name=rootless" in (said["SecurityOptions"] or ()),
        )
    except (ValueError, KeyError, TypeError):
        return DockerInfo()


def dockers(paths: Iterable[str], podman: str, sockets: Iterable[str], composes: Mapping[str, str]) -> Dockers:
    return Dockers(
        next((path for path in paths if path), ""),
        podman == "podman",
        tuple(dict.fromkeys(user for user in sockets if user)),
        composes,
    )


def packaging(unfinished: Iterable[str], lock: str, sources: Iterable[str]) -> Packaging:
    """``sources``: rows of ``grep -H``, ``file:line``; apt's file names hold no colon."""
    rows = (line.partition(":") for line in sources)
    return Packaging(
        tuple(line for line in unfinished if line),
        lock,
        tuple((path, text.strip()) for path, _, text in rows if text.strip() and not text.strip().startswith("#")),
    )


def guards(said: Mapping[str, str]) -> Guards:
    boot = said.get("secure-boot", "").strip()
    return Guards(
        selinux_enforcing=said.get("selinux", "") == "1",
        apparmor=said.get("apparmor", "") == "Y",
        apparmor_parser=said.get("apparmor-parser", "") == "yes",
        userns_restricted=said.get("userns", "") == "1",
        cgroup_version={"cgroup2fs": 2, "tmpfs": 1}.get(said.get("cgroup", ""), 0),
        secure_boot={"1": True, "0": False}.get(boot),
        nouveau=said.get("nouveau", "") == "yes",
    )


def containers_of(lines: Iterable[str]) -> dict[int, str]:
    """``pid<TAB>/proc/PID/cgroup``, as one line: the process's container, by its whole id. Others are left out.

    The last id counts: on a machine that is a container itself the outer one's stands before it.
    """
    rows = (line.partition("\t") for line in lines)
    return {int(pid): ids[-1] for pid, _, text in rows if pid.isdigit() and (ids := _CONTAINER_ID.findall(text))}

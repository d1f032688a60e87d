"""The state of a host as data: what the probe found, parsed. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stoker.facts import gpus as cards
from stoker.facts import surroundings
from stoker.facts.gpus import Gpu as Gpu  # also imported from here
from stoker.facts.gpus import GpuProcess, KernelModule
from stoker.facts.surroundings import DockerInfo, Dockers, Guards, Packaging

SECTION = "@@stoker "


@dataclass(frozen=True)
class FileState:
    """A file or directory on the host. ``digest`` is the SHA-256 of a regular file, else empty."""

    kind: str  #: as ``stat -c %F`` says: regular file, directory, symbolic link ...
    mode: str  #: octal without leading zero, ``644``
    owner: str
    group: str
    digest: str = ""


@dataclass(frozen=True)
class Container:
    """A container, running or not. ``configuration`` is the hash that Stoker labels it with."""

    name: str
    id: str
    image_id: str
    status: str
    started_at: str
    restarts: int
    configuration: str
    project: str
    ports: frozenset[int] = frozenset()  #: published on the host
    image: str = ""  #: as it was named when the container was made
    config_files: tuple[str, ...] = ()  #: Compose files that it was made from
    command: tuple[str, ...] = ()
    restart: str = ""  #: restart policy; empty and ``no``: none
    mounts: tuple[tuple[str, str], ...] = ()  #: path on the host, path in the container
    gpus: tuple[str, ...] = ()  #: as they were asked for: index, UUID, ``nvidia.com/gpu=UUID``, ``all``

    @property
    def running(self) -> bool:
        return self.status == "running"


@dataclass(frozen=True)
class Listener:
    """A listening TCP port and who holds it."""

    port: int
    process: str


@dataclass(frozen=True)
class HostState:
    """Everything that the steps decide by. Absent things are empty or None, never an error."""

    os_id: str = ""
    os_codename: str = ""
    os_name: str = ""
    architecture: str = ""
    uid: int = -1
    user: str = ""
    time: int = 0  #: seconds since the epoch on the host's clock
    packages: Mapping[str, str] = field(default_factory=dict)
    held: frozenset[str] = frozenset()  #: of them, those that apt does not change
    files: Mapping[str, FileState] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)  #: unit -> ``active enabled``
    driver: str = ""
    gpu_error: str = ""
    gpus: Sequence[Gpu] = ()
    gpu_processes: Sequence[GpuProcess] = ()
    gpu_containers: Mapping[int, str] = field(default_factory=dict)  #: pid of a process on a card -> its container's id
    kernel_module: KernelModule = ""  #: empty when it is not known
    module_version: str = ""  #: of the driver's module on disk: what the next boot loads
    docker_version: str = ""
    docker_error: str = ""
    docker_info: DockerInfo = field(default_factory=DockerInfo)
    dockers: Dockers = field(default_factory=Dockers)
    packaging: Packaging = field(default_factory=Packaging)
    guards: Guards = field(default_factory=Guards)
    containers: Mapping[str, Container] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)  #: reference -> image id
    contexts: Mapping[str, str] = field(
        default_factory=dict
    )  #: image built here -> hash of the files that it was built from
    memory_kib: int = 0  #: the machine's own memory; 0 when it is not known
    listeners: Sequence[Listener] = ()
    free_bytes: Mapping[str, int] = field(default_factory=dict)
    file_systems: Mapping[str, str] = field(default_factory=dict)  #: path -> device, or mount point where it has none
    model_files: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  #: directory -> path -> bytes
    answers: Mapping[str, str] = field(default_factory=dict)  #: name of an HTTP probe -> what came back
    firewall: Literal["", "as written", "another"] = (
        ""  #: Stoker's table in the kernel beside its file; empty: no table
    )
    bridges: Sequence[str] = ()  #: network interfaces named ``br-...``, as Docker names its bridges

    @property
    def docker_running(self) -> bool:
        return bool(self.docker_version)


def parse(lines: Iterable[str]) -> HostState:
    """The probe's output as a HostState. Unknown lines are skipped: a shell may print a banner first."""
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        if line.startswith(SECTION):
            current = sections.setdefault(line[len(SECTION) :].strip(), [])
        elif current is not None:
            current.append(line)

    def of(name: str) -> list[str]:
        return sections.get(name, [])

    def first(name: str) -> str:
        return next((line.strip() for line in of(name) if line.strip()), "")

    release = _pairs(of("os"), "=")
    identity = first("identity").split()
    gpus, driver, gpu_error = cards.queried(of("gpus"))
    docker = first("docker")
    disks = [row for line in of("disk") if len(row := line.split("\t")) == 3 and row[1].isdigit()]
    return HostState(
        os_id=release.get("ID", "").strip('"'),
        os_codename=release.get("VERSION_CODENAME", "").strip('"'),
        os_name=release.get("PRETTY_NAME", "").strip('"'),
        architecture=identity[0] if identity else "",
        uid=int(identity[1]) if len(identity) > 1 else -1,
        user=identity[2] if len(identity) > 2 else "",
        time=int(identity[3]) if len(identity) > 3 else 0,
        packages={name: version for name, version, _ in _packages(of("packages"))},
        held=frozenset(name for name, _, status in _packages(of("packages")) if status == "hi"),
        files=_files(of("files"), of("digests")),
        contents={
            name[len("content ") :]: "\n".join(body) for name, body in sections.items() if name.startswith("content ")
        },
        units=_pairs(of("units"), "\t"),
        driver=driver,
        gpu_error=gpu_error,
        gpus=gpus,
        gpu_processes=cards.processes(of("gpu-processes")),
        gpu_containers=surroundings.containers_of(of("gpu-containers")),
        kernel_module=cards.kernel_module(of("kernel-module")),
        module_version=first("module-version"),
        docker_version="" if docker.startswith("error") else docker,
        docker_error=" ".join(of("docker"))[len("error") :].strip() if docker.startswith("error") else "",
        docker_info=surroundings.docker_info(first("docker-info")),
        dockers=surroundings.dockers(
            of("docker-path"), first("docker-is"), of("docker-rootless"), _pairs(of("composes"), "\t")
        ),
        packaging=surroundings.packaging(of("unfinished"), first("apt-lock"), of("apt-sources")),
        guards=surroundings.guards(_pairs(of("guards"), "=")),
        containers=_containers(of("containers")),
        images=_pairs(of("images"), "\t"),
        contexts=_pairs(of("contexts"), "\t"),
        memory_kib=int(first("memory")) if first("memory").isdigit() else 0,
        listeners=_listeners(of("listeners")),
        free_bytes={path: int(size) for path, size, _ in disks},
        file_systems={path: system for path, _, system in disks},
        model_files=_model_files(of("models")),
        answers=_pairs(of("answers"), "\t"),
        firewall=_firewall(first("firewall")),
        bridges=tuple(line for line in of("bridges") if line),
    )


def _pairs(lines: Iterable[str], separator: str) -> dict[str, str]:
    return {line.partition(separator)[0]: line.partition(separator)[2] for line in lines if separator in line}


def _firewall(word: str) -> Literal["", "as written", "another"]:
    return "as written" if word == "as written" else "another" if word else ""


def _packages(lines: Iterable[str]) -> list[tuple[str, str, str]]:
    """``name<TAB>version<TAB>status``; only what is installed (``ii``, or held ``hi``)."""
    rows = (line.split("\t") for line in lines)
    return [(row[0], row[1], row[2].strip()) for row in rows if len(row) == 3 and row[2].strip() in ("ii", "hi")]


def _files(stats: Iterable[str], digests: Iterable[str]) -> dict[str, FileState]:
    by_path = {line[66:]: line[:64] for line in digests if len(line) > 66}
    files = {}
    for line in stats:
        parts = line.split("\t", 4)
        if len(parts) == 5:
            kind, mode, owner, group, path = parts
            kind = "regular file" if kind.startswith("regular") else kind
            files[path] = FileState(kind, mode, owner, group, by_path.get(path, ""))
    return files


def _containers(lines: Iterable[str]) -> dict[str, Container]:
    containers = {}
    for line in lines:
        try:
            raw = json.loads(line)
        except ValueError:
            continue
        labels = raw.get("labels") or {}
        name = raw["name"].lstrip("/")
        containers[name] = Container(
            name=name,
            id=raw["id"],
            image_id=raw["image"],
            status=raw["status"],
            started_at=raw["started"],
            restarts=raw["restarts"],
            configuration=labels.get("stoker.configuration", ""),
            project=labels.get("com.docker.compose.project", ""),
            ports=frozenset(
                int(binding["HostPort"])
                for bindings in (raw.get("ports") or {}).values()
                for binding in bindings or ()
                if binding["HostPort"].isdigit()
            ),
            image=raw.get("reference") or "",
            config_files=tuple(filter(None, labels.get("com.docker.compose.project.config_files", "").split(","))),
            command=tuple(raw.get("command") or ()),
            restart=raw.get("restart") or "",
            mounts=tuple((mount["Source"], mount["Destination"]) for mount in raw.get("mounts") or ()),
            gpus=_asked_gpus(raw),
        )
    return containers


def _asked_gpus(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """By ``--gpus``, a reservation of Compose or CDI; else by NVIDIA's runtime and its variable."""
    requests = raw.get("devices") or ()
    if requests:
        named = [word for request in requests for word in request.get("DeviceIDs") or ()]
        return tuple(named) or ("all",)
    if raw.get("runtime") == "nvidia":
        return tuple(word for text in raw.get("visible") or () for word in text.split(",") if word)
    return ()


def _listeners(lines: Iterable[str]) -> list[Listener]:
    """Rows of ``ss -Hltnp``: state, queues, local address, peer, ``users:(("nginx",pid=1,fd=3))``."""
    listeners = []
    for line in lines:
        fields = line.split()
        if len(fields) >= 4 and fields[3].rpartition(":")[2].isdigit():
            users = line.partition("users:")[2]
            process = users.split('"')[1] if users.count('"') >= 2 else ""
            pid = users.partition("pid=")[2].partition(",")[0]
            listeners.append(
                Listener(int(fields[3].rpartition(":")[2]), f"{process} (process {pid})" if pid else process)
            )
    return listeners


def _model_files(lines: Iterable[str]) -> dict[str, dict[str, int]]:
    """``directory<TAB>path<TAB>bytes``."""
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        parts = line.split("\t")
        if len(parts) == 3 and parts[2].isdigit():
            found.setdefault(parts[0], {})[parts[1]] = int(parts[2])
    return found

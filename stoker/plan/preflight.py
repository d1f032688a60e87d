"""The verdict on one host before anything is written anywhere: every reason against, at once, each with its remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stoker.facts.state import Gpu, HostState
from stoker.spec.fleet import Host
from stoker.spec.settings import OllamaModel
from stoker.steps.docker import DAEMON_JSON
from stoker.steps.driver import can_be_installed

#: Distributions by ID and codename, and how sure it is that a deploy onto them works.
SUPPORTED = {
    ("debian", "bookworm"): "Debian 12",
    ("debian", "trixie"): "Debian 13",
    ("ubuntu", "jammy"): "Ubuntu 22.04 (untested)",
    ("ubuntu", "noble"): "Ubuntu 24.04 (untested)",
}

#: The last driver branch for compute capability below 7.5 (NVIDIA data-centre driver page, 2026).
LAST_BRANCH_BEFORE_TURING = 580

#: Ollama 0.30 and later put cards of compute capability 5.0 to 6.2 on the CPU, without an error, below this branch.
OLLAMA_PASCAL_BRANCH = 570

#: CUDA 12.x runs on drivers from this branch on (minor-version compatibility).
CUDA_12_BRANCH = 525

#: Clocks further apart than this break package signatures and TLS.
CLOCK_SKEW_SECONDS = 300

#: Left to the system and Docker beside engines that use the machine's own memory.
SYSTEM_MEMORY_GIB = 1.0

_GIB = 1 << 30


@dataclass(frozen=True)
class Refusal:
    """One reason not to touch the fleet, and what to do about it."""

    host: str
    reason: str
    remedy: str
    anchor: str = ""  #: section of docs/troubleshooting.md

    def __str__(self) -> str:
        more = f"\n    more:   docs/troubleshooting.md#{self.anchor}" if self.anchor else ""
        return f"{self.host}: {self.reason}\n    remedy: {self.remedy}{more}"


def refusals(host: Host, state: HostState, now: int) -> list[Refusal]:
    """Everything that speaks against deploying to a host. ``now`` is this machine's clock, seconds since the epoch."""
    if state.uid < 0:  # pyinfra turns a connection that is lost while a fact is gathered into an empty state
        return [
            Refusal(
                host.name,
                "nothing could be found out about it: the connection was lost, or its shell does not run commands",
                f"try `ssh {host.name} id`, and deploy again when that works",
                "unreachable",
            )
        ]
    checks = (
        _system(state, now),
        _docker(host, state),
        _driver(host, state),
        _gpus(host, state),
        _ports(host, state),
        _names(host, state),
        _disks(host, state),
        _memory(host, state),
    )
    return [Refusal(host.name, *reason) for check in checks for reason in check]


def unreachable_sources(host: Host, reach: Mapping[str, str]) -> list[Refusal]:
    """A refusal for each download source that the host cannot connect to. ``reach``: URL -> ok, name or connection."""
    words = {"name": "its name does not resolve there", "connection": "no connection could be opened from there"}
    return [
        Refusal(
            host.name,
            f"{url} cannot be reached: {words[result]}",
            "set `mirrors` or `proxy` in group_data/all.py, or mend the network",
            "mirrors",
        )
        for url, result in reach.items()
        if result in words
    ]


Reasons = Iterator[tuple[str, str, str]]


def _system(state: HostState, now: int) -> Reasons:
    if state.uid != 0:
        yield (
            f"the user {state.user or '?'} has no root privileges",
            "log in as root, or set `_sudo = True` for a user who may use sudo",
            "privileges",
        )
    if (state.os_id, state.os_codename) not in SUPPORTED:
        yield (
            f"{state.os_name or 'this system'} is not supported",
            f"use one of {', '.join(SUPPORTED.values())}",
            "unsupported-system",
        )
    if state.architecture != "x86_64":
        yield (
            f"the processor is {state.architecture}, the pinned engine images are built for x86_64",
            "use an x86_64 machine",
            "unsupported-system",
        )
    if state.time and abs(state.time - now) > CLOCK_SKEW_SECONDS:
        yield (
            f"its clock is {abs(state.time - now)} s {'ahead of' if state.time > now else 'behind'} this machine's",
            "set both clocks, for instance with chrony; signatures and TLS fail otherwise",
            "clock",
        )


def _docker(host: Host, state: HostState) -> Reasons:
    if state.docker_from_snap:
        yield (
            "Docker is installed as a snap, which cannot use the container toolkit",
            "snap remove docker",
            "docker-from-snap",
        )
    if host.settings.docker.source == "distribution" and state.os_codename == "bookworm":
        yield ("Debian 12's own packages hold no Compose 2", 'use docker = {"source": "docker-ce"}', "docker-source")
    text = state.contents.get(DAEMON_JSON, "")
    try:
        valid = not text.strip() or isinstance(json.loads(text), dict)
        reason = "it is not an object"
    except ValueError as error:
        valid, reason = False, str(error)
    if not valid:
        yield (
            f"{DAEMON_JSON} cannot be read ({reason}); Docker would not start with it",
            "correct or remove the file; Stoker does not overwrite it",
            "daemon-json",
        )


def _driver(host: Host, state: HostState) -> Reasons:
    if state.gpu_error:
        if host.settings.nvidia.install_driver and can_be_installed(state):
            return
        if "not installed" in state.gpu_error or "not found" in state.gpu_error:
            yield ("no NVIDIA driver is installed", _install_driver(host, state), "driver-missing")
        elif "mismatch" in state.gpu_error:
            yield (
                f"nvidia-smi says: {state.gpu_error}",
                "the driver was upgraded under a running kernel module: reboot the host",
                "driver-mismatch",
            )
        else:
            yield (
                f"nvidia-smi says: {state.gpu_error}",
                "look at `dmesg | grep -i nvrm` on the host; after a kernel upgrade rebuild the module (dkms autoinstall) and "
                "reboot",
                "driver-not-loaded",
            )
        return
    branch = driver_branch(state.driver)
    old = [gpu for gpu in state.gpus if capability(gpu) < (7, 5)]
    if old and branch > LAST_BRANCH_BEFORE_TURING:
        yield (
            f"driver {state.driver} has no support for {old[0].name}: {LAST_BRANCH_BEFORE_TURING} is the last branch that has",
            f"install branch {LAST_BRANCH_BEFORE_TURING} and hold it (apt-mark hold)",
            "driver-branch",
        )
    if branch < CUDA_12_BRANCH:
        yield (
            f"driver {state.driver} is too old for the pinned images (CUDA 12)",
            f"install branch {host.settings.versions.driver_branch}",
            "driver-branch",
        )
    used = {
        index
        for _, instance in host.instances()
        if isinstance(host.settings.models.get(instance.model), OllamaModel)
        for index in instance.gpus
    }
    pascal = [gpu for gpu in state.gpus if gpu.index in used and (5, 0) <= capability(gpu) <= (6, 2)]
    if pascal and CUDA_12_BRANCH <= branch < OLLAMA_PASCAL_BRANCH:
        yield (
            f"with driver {state.driver} Ollama would serve from the CPU instead of the {pascal[0].name}, without an error",
            f"install branch {host.settings.versions.driver_branch} ({OLLAMA_PASCAL_BRANCH} is the oldest that works)",
            "driver-branch",
        )


def _install_driver(host: Host, state: HostState) -> str:
    branch = host.settings.versions.driver_branch
    package = (
        f"apt install nvidia-driver-{branch}-server"
        if state.os_id == "ubuntu"
        else f"NVIDIA's repository, cuda-drivers-{branch}"
    )
    return f"install the proprietary driver of branch {branch} ({package}), hold it, reboot, and deploy again"


def _gpus(host: Host, state: HostState) -> Reasons:
    if state.gpu_error:
        return
    want = host.gpus
    if len(state.gpus) != want.count:
        yield (
            f"it has {len(state.gpus)} GPUs ({', '.join(gpu.name for gpu in state.gpus)}), described are {want.count}",
            "correct `gpus` in group_data, or look why a card is missing (lspci | grep -i nvidia)",
            "gpu-count",
        )
    for gpu in state.gpus:
        if want.card.lower() not in gpu.name.lower():
            yield (
                f"GPU {gpu.index} is a {gpu.name}, described is {want.card!r}",
                "correct `gpus` in group_data",
                "gpu-count",
            )
        # nvidia-smi reports a little less than the nominal size (a 24 GB P40 has 23040 MiB with ECC on).
        elif not 0.9 * want.memory_gib <= gpu.memory_mib / 1024 <= 1.05 * want.memory_gib:
            yield (
                f"GPU {gpu.index} has {gpu.memory_mib / 1024:.1f} GiB, described are {want.memory_gib}",
                "correct `gpus` in group_data",
                "gpu-count",
            )


def _ports(host: Host, state: HostState) -> Reasons:
    owners = {listener.port: listener.process for listener in state.listeners}
    projects = {stack.project for stack in host.stacks}
    published = {
        port: container for container in state.containers.values() if container.running for port in container.ports
    }
    for stack in host.stacks:
        users = [(instance.port, instance.name) for instance in stack.instances]
        users += [(stack.gateway.port, stack.gateway.container)] if stack.gateway else []
        for port, name in users:
            container = published.get(port)
            if container is not None and container.project in projects:
                continue  # also of another instance: Compose frees the port in the same deploy
            if container is not None:
                holder = f"the container {container.name}"
            elif port in owners:
                holder = owners[port] or "another process"
            else:
                continue
            yield (
                f"port {port}, wanted by {name}, is held by {holder}",
                "stop it, or choose another port",
                "port-taken",
            )


def _names(host: Host, state: HostState) -> Reasons:
    for stack in host.stacks:
        names = [instance.name for instance in stack.instances] + ([stack.gateway.container] if stack.gateway else [])
        for name in names:
            container = state.containers.get(name)
            if container is not None and container.project != stack.project:
                whose = (
                    f"belongs to the project {container.project}" if container.project else "was not made by Compose"
                )
                yield (
                    f"a container named {name} exists already and {whose}",
                    f"docker rm -f {name} on the host, or choose another name",
                    "container-name",
                )


def _disks(host: Host, state: HostState) -> Reasons:
    for path, need, what in disk_needs(host):
        free = state.free_bytes.get(path)
        if free is not None and free < need:
            yield (
                f"{path} has {free / _GIB:.1f} GiB free, {what} need about {need / _GIB:.1f}",
                "make room there, or mount a larger disk",
                "disk",
            )


def _memory(host: Host, state: HostState) -> Reasons:
    """Engines without a card take the machine's own memory, all of them together."""
    needs = {
        instance.name: profile.host_memory.of(instance.environment)
        for _, instance in host.instances()
        if (profile := host.profile_of(instance)).host_memory
    }
    need, have = sum(needs.values()) + SYSTEM_MEMORY_GIB, state.memory_kib / (1 << 20)
    if needs and state.memory_kib and have < need:
        each = ", ".join(f"{name} {gib:.1f}" for name, gib in needs.items())
        yield (
            f"it has {have:.1f} GiB of memory, its engines need {need:.1f} ({each}, the system {SYSTEM_MEMORY_GIB:.1f}): "
            "they are CPU builds",
            "describe fewer instances, or lower the cache of each by its environment",
            "host-memory",
        )


def disk_needs(host: Host) -> list[tuple[str, int, str]]:
    """``(path, bytes, what)``. A margin for logs and caches only: sizes of images and models are checked when they are fetched."""
    return [("/var/lib", 2 * _GIB, "images and logs")] + [
        (stack.model_directory, _GIB, "model files") for stack in host.stacks
    ]


def driver_branch(version: str) -> int:
    match = re.match(r"(\d+)", version)
    return int(match.group(1)) if match else 0


def capability(gpu: Gpu) -> tuple[int, int]:
    major, _, minor = gpu.compute_capability.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)

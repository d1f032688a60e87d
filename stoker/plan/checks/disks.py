"""Room on the disks: for each file system, what is still to come there against what is free."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from stoker.facts.manifest import is_complete
from stoker.facts.state import HostState
from stoker.models.download import download_of
from stoker.plan.image_sizes import image_size
from stoker.plan.look import Look, Reason, Reasons
from stoker.spec.fleet import Host
from stoker.steps import build, models, ollama
from stoker.steps.docker import DAEMON_JSON

_GIB = 1 << 30

DOCKER_ROOT = "/var/lib/docker"
CONTAINERD_ROOT = "/var/lib/containerd"

#: A fresh installation of this release or a later one keeps images with containerd (Docker Engine 29.0 release notes).
CONTAINERD_STORE_SINCE = 29


@dataclass(frozen=True)
class Need:
    """Something that comes to a directory. ``assumed``: its size is a guess that a refusal cannot rest on."""

    path: str
    size: int
    what: str
    assumed: bool = False


def check(look: Look) -> Reasons:
    state = look.state
    by_system: dict[str, list[Need]] = {}
    room: dict[str, int] = {}
    paths: dict[str, dict[str, None]] = {}
    for need in disk_needs(look):
        known = nearest(need.path, state)
        if known is not None:
            system = state.file_systems.get(known, known)
            by_system.setdefault(system, []).append(need)
            room[system] = state.free_bytes[known]
            paths.setdefault(system, {})[known] = None
    for system, needs in by_system.items():
        free, total = room[system], sum(need.size for need in needs)
        if free >= total:
            continue
        sure = sum(need.size for need in needs if not need.assumed)
        each = ", ".join(f"{need.what} {need.size / _GIB:.1f}{' (assumed)' if need.assumed else ''}" for need in needs)
        yield Reason(
            f"the disk of {', '.join(paths[system])} has {free / _GIB:.1f} GiB free, still to come are about {total / _GIB:.1f}: {each}",
            "make room there, or mount a larger disk",
            "disk",
            "refuse" if free < sure else "warn",
        )


def nearest(path: str, state: HostState) -> str | None:
    """The path itself or the nearest directory above it of which the room is known."""
    parts = path.rstrip("/").split("/")
    above = ("/".join(parts[:end]) or "/" for end in range(len(parts), 0, -1))
    return next((one for one in above if one in state.free_bytes), None)


def disk_needs(look: Look) -> Iterator[Need]:
    """Margins for logs and caches, and what is missing: images and model files."""
    host, state = look.host, look.state
    yield Need("/var/lib", 2 * _GIB, "logs and caches")
    place, beside = image_place(host, state)
    built = build.lacking(host, state)
    wanted = dict.fromkeys([*host.images(), *(build.base(image) for image in built)])
    for image in wanted:
        if not state.images.get(image) or image in built:
            one = image_size(host, image)
            yield Need(place, one.unpacked + (one.packed if beside else 0), image, one.assumed)
    for directory in dict.fromkeys(stack.model_directory for stack in host.stacks if stack.model_directory):
        yield Need(directory, _GIB, "model files beside those named")
    for directory, (model, _) in models.wanted(host).items():
        size = look.cards and download_of(model, look.cards)
        if size and not is_complete(directory, model, state):
            there = sum(state.model_files.get(directory, {}).values())
            yield Need(directory, max(size.bytes - there, 0), model.repository, not size.sure)
    for entry in ollama.served(host):
        size = look.cards and download_of(entry.model, look.cards)
        if size and entry.base_manifest not in state.files:
            yield Need(entry.stack.model_directory, size.bytes, entry.model.library)


def image_place(host: Host, state: HostState) -> tuple[str, bool]:
    """Where images go, and whether they are kept packed as well. What the daemon says counts; without one, its settings."""
    if state.docker_info.root:
        with_containerd = state.docker_info.containerd_store
        return (CONTAINERD_ROOT, True) if with_containerd else (state.docker_info.root, False)
    settings = {**_daemon_json(state), **host.settings.docker.daemon}
    features = settings.get("features")
    asked = features.get("containerd-snapshotter") if isinstance(features, dict) else None
    major = host.settings.versions.docker.partition(".")[0]
    fresh = host.settings.docker.source == "docker-ce" and major.isdigit() and int(major) >= CONTAINERD_STORE_SINCE
    if asked or (asked is None and fresh):
        return CONTAINERD_ROOT, True
    root = settings.get("data-root")
    return (root if isinstance(root, str) and root else DOCKER_ROOT), False


def _daemon_json(state: HostState) -> dict[str, object]:
    try:
        found = json.loads(state.contents.get(DAEMON_JSON, "") or "{}")
    except ValueError:
        return {}  # the check of Docker says it
    return found if isinstance(found, dict) else {}

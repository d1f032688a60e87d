"""Disks that are full, or about to be."""

from __future__ import annotations

import posixpath

from stoker.doctor.live import FileSystem
from stoker.doctor.look import Line, LiveLook

#: Used part from which a person should know, and from which it is a matter of days or hours.
WARN_SHARE, FULL_SHARE = 0.90, 0.97
#: A large disk at 97 % has room; less than this, bytes, is full on any disk that is large enough to be expected to have it.
LEAST_BYTES = 1 << 30

_GIB = 1 << 30


def room(look: LiveLook) -> list[Line]:
    """Each file system that Stoker, Docker or apt write to."""
    found = [
        Line("finding", f"{one.mount} {trouble}", _fix(look, one.mount))
        for one in look.live.file_systems
        if (trouble := _trouble(one))
    ]
    if found or not look.live.file_systems:
        return found
    fullest = max(look.live.file_systems, key=lambda one: one.share)
    return [
        Line(
            "ok", f"{len(look.live.file_systems)} file systems, the fullest is {fullest.mount} with {fullest.share:.0%}"
        )
    ]


def _trouble(one: FileSystem) -> str:
    free = f"{one.available / _GIB:.2f} GiB free"
    size = one.used + one.available
    # A file system that is small by design (/run) is not full because it has less than that.
    if one.share >= FULL_SHARE or (one.available < LEAST_BYTES and size > 20 * LEAST_BYTES):
        return f"is full: {one.share:.0%} used, {free}"
    if one.share >= WARN_SHARE:
        return f"is nearly full: {one.share:.0%} used, {free}"
    if one.inodes and one.inodes_used / one.inodes >= WARN_SHARE:
        return f"has nearly no inodes left: {one.inodes_used} of {one.inodes} used ({free})"
    return ""


def _fix(look: LiveLook, mount: str) -> str:
    """Images that no container uses go where Docker keeps its data; elsewhere the largest directories are named.

    A described image whose container is not there is still needed: then only what has no name goes.
    """
    if mount == _mount_of(look, "/var/lib/docker"):
        used = {container.image_id for container in look.state.containers.values()}
        there = {look.state.images.get(image) for image in look.host.images()} - {None, ""}
        every = ["--all"] if there <= used else []
        return look.commands.there("docker", "image", "prune", *every, "--force")
    return look.commands.there("sh", "-c", f"du -xah -d 2 {mount} | sort -h | tail -n 15")


def _mount_of(look: LiveLook, path: str) -> str:
    mounts = {one.mount for one in look.live.file_systems}
    while path not in mounts and path != "/":
        path = posixpath.dirname(path)
    return path

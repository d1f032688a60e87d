"""Room on the disks."""

from __future__ import annotations

from stoker.plan.look import Look, Reason, Reasons
from stoker.spec.fleet import Host

_GIB = 1 << 30


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    for path, need, what in disk_needs(host):
        free = state.free_bytes.get(path)
        if free is not None and free < need:
            yield Reason(
                f"{path} has {free / _GIB:.1f} GiB free, {what} need about {need / _GIB:.1f}",
                "make room there, or mount a larger disk",
                "disk",
            )


def disk_needs(host: Host) -> list[tuple[str, int, str]]:
    """``(path, bytes, what)``. A margin for logs and caches only: sizes of images and models are checked when they are fetched."""
    return [("/var/lib", 2 * _GIB, "images and logs")] + [
        (stack.model_directory, _GIB, "model files") for stack in host.stacks
    ]

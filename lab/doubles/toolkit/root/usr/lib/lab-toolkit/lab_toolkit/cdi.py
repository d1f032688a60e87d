"""The CDI description of this host's simulated cards: same kind, names and shape as the real toolkit writes.

What is mounted into containers is the simulated driver (lab/doubles/driver) instead of NVIDIA's libraries.
"""

from __future__ import annotations

import json
from pathlib import Path

KIND = "nvidia.com/gpu"

_COMMON_NODES = ("/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl")

_MOUNTS = (
    ("/usr/bin/nvidia-smi", "ro"),
    ("/usr/lib/lab-gpu", "ro"),
    ("/etc/lab-gpu", "ro"),
    ("/run/lab-gpu", "rw"),
)


def cards() -> list[dict[str, object]]:
    """The cards of the simulated driver. Raises FileNotFoundError where there is none."""
    found = json.loads(Path("/etc/lab-gpu/gpus.json").read_text(encoding="utf-8"))["gpus"]
    assert isinstance(found, list)
    return found


def specification(strategies: tuple[str, ...]) -> str:
    """The text of the CDI file, with each card under its name by each strategy (index, uuid), and all of them as `all`."""
    lines = ["---", "cdiVersion: 0.5.0", f"kind: {KIND}", "devices:"]
    gpus = cards()
    for strategy in strategies:
        for gpu in gpus:
            lines += _device(str(gpu[strategy]), [gpu])
    lines += _device("all", gpus)
    lines += ["containerEdits:", "  env:", "  - NVIDIA_VISIBLE_DEVICES=void", "  - LAB_GPU_CDI=1", "  deviceNodes:"]
    lines += [f"  - path: {path}" for path in _COMMON_NODES]
    lines.append("  mounts:")
    for path, access in _MOUNTS:
        lines += [f"  - hostPath: {path}", f"    containerPath: {path}", f"    options: [{access}, nosuid, nodev, rbind, rprivate]"]
    return "\n".join(lines) + "\n"


def names(strategies: tuple[str, ...]) -> list[str]:
    return [f"{KIND}={gpu[strategy]}" for strategy in strategies for gpu in cards()] + [f"{KIND}=all"]


def _device(name: str, gpus: list[dict[str, object]]) -> list[str]:
    lines = [f'- name: "{name}"', "  containerEdits:", "    env:"]
    lines += [f"    - LAB_GPU_{gpu['index']}={gpu['uuid']}" for gpu in gpus]
    lines.append("    deviceNodes:")
    lines += [f"    - path: /dev/nvidia{gpu['index']}" for gpu in gpus]
    return lines

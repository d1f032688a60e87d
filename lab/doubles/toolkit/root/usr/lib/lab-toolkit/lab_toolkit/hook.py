"""The legacy prestart hook: enters the container's mount namespace before it starts and mounts the simulated driver there.

It is the way that a daemon-reload breaks on real hosts: such containers carry a marker whose age nvidia-smi compares.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from lab_gpu.machine import read_machine
from lab_gpu.smi import driver_failure

_MOUNTS = ("/usr/bin/nvidia-smi", "/usr/lib/lab-gpu", "/etc/lab-gpu", "/run/lab-gpu")


def main(arguments: list[str]) -> int:
    """`prestart` with the container's state on stdin; other hook names do nothing."""
    if "prestart" not in arguments:
        return 0
    state = json.load(sys.stdin)
    with open(os.path.join(state["bundle"], "config.json"), encoding="utf-8") as handle:
        config = json.load(handle)
    environment = dict(entry.split("=", 1) for entry in config["process"].get("env", []) if "=" in entry)
    visible = environment.get("NVIDIA_VISIBLE_DEVICES", "")
    if visible in ("", "void", "none"):
        return 0
    if driver_failure() or read_machine() is None:
        print("nvidia-container-cli: initialization error: nvml error: driver not loaded", file=sys.stderr)
        return 1
    unmet = _unmet(environment)
    if unmet:
        text = f"nvidia-container-cli: requirement error: unsatisfied condition: {unmet}, please update your driver to a newer version"
        print(f"{text}, or use an earlier cuda container", file=sys.stderr)
        return 1
    root = config["root"]["path"]
    root = root if os.path.isabs(root) else os.path.join(state["bundle"], root)
    _mount_into(root, int(state["pid"]), visible)
    return 0


def _unmet(environment: dict[str, str]) -> str:
    """The image's CUDA version when the driver is older than it wants, else empty (NVIDIA_REQUIRE_CUDA, first condition only)."""
    condition = environment.get("NVIDIA_REQUIRE_CUDA", "").split(" ", 1)[0]
    machine = read_machine()
    if machine is None or not condition.startswith("cuda>=") or environment.get("NVIDIA_DISABLE_REQUIRE"):
        return ""
    wanted, have = condition.removeprefix("cuda>="), machine["cuda_version"]
    older = [int(part) for part in have.split(".")] < [int(part) for part in wanted.split(".")]
    return condition if older else ""


def _mount_into(root: str, pid: int, visible: str) -> None:
    """Bind the driver's files, make the device nodes, leave the marker; all inside the container's mount namespace."""
    script = ["set -e"]
    for path in _MOUNTS:
        target = root + path
        if os.path.isdir(path):
            script.append(f"mkdir -p '{target}'; mount --rbind '{path}' '{target}'")
        else:
            script.append(f"mkdir -p '{os.path.dirname(target)}'; touch '{target}'; mount --bind '{path}' '{target}'")
    machine = read_machine()
    assert machine is not None
    wanted = visible.split(",")
    for gpu in machine["gpus"]:
        if visible == "all" or str(gpu["index"]) in wanted or gpu["uuid"] in wanted:
            node = f"{root}/dev/nvidia{gpu['index']}"
            script.append(f"[ -e '{node}' ] || mknod -m 666 '{node}' c 195 {gpu['index']}")
    script.append(f"[ -e '{root}/dev/nvidiactl' ] || mknod -m 666 '{root}/dev/nvidiactl' c 195 255")
    script.append(f": >'{root}/etc/lab-gpu-legacy'")
    subprocess.run(["nsenter", "-t", str(pid), "-m", "--", "sh", "-c", "\n".join(script)], check=True)

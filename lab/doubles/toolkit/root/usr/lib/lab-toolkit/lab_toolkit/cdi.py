"""The CDI specification of the simulated GPUs, in the layout that `nvidia-ctk cdi generate` writes."""

from __future__ import annotations

from lab_gpu.machine import Machine

KIND = "nvidia.com/gpu"
_CONTROL_NODES = ("/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl")
# In place of the driver's libraries: the simulated driver and its state.
_READ_ONLY = ("/usr/bin/nvidia-smi", "/usr/lib/lab-gpu", "/etc/lab-gpu")
_WRITABLE = ("/run/lab-gpu",)


def specification(machine: Machine) -> str:
    """The YAML text: each GPU by index and by UUID, and all of them together."""
    lines = ["---", "cdiVersion: 0.5.0", "containerEdits:", "  deviceNodes:"]
    lines += [f"  - path: {node}" for node in _CONTROL_NODES]
    lines += ["  env:", "  - NVIDIA_CTK_LIBCUDA_DIR=/usr/lib/x86_64-linux-gnu", "  - NVIDIA_VISIBLE_DEVICES=void"]
    lines += ["  mounts:"]
    for path in _READ_ONLY:
        lines += _mount(path, "ro")
    for path in _WRITABLE:
        lines += _mount(path, "rw")
    lines += ["devices:"]
    minors = [(gpu["uuid"], gpu["index"]) for gpu in machine["gpus"]]
    for _, minor in minors:
        lines += _device(str(minor), [minor])
    for uuid, minor in minors:
        lines += _device(uuid, [minor])
    lines += _device("all", [minor for _, minor in minors])
    lines += [f"kind: {KIND}", ""]
    return "\n".join(lines)


def device_names(text: str) -> list[str]:
    """Qualified names of the devices in a specification of ours."""
    names = [line.split(":", 1)[1].strip().strip('"') for line in text.splitlines() if line.strip().startswith("name:")]
    return [f"{KIND}={name}" for name in names]


def _device(name: str, minors: list[int]) -> list[str]:
    """A device; in a container its node decides what the simulated driver shows."""
    nodes = [f"    - path: /dev/nvidia{minor}" for minor in minors]
    return ["- containerEdits:", "    deviceNodes:", *nodes, f'  name: "{name}"']


def _mount(path: str, mode: str) -> list[str]:
    options = [mode, "nosuid", "nodev", "rbind", "rprivate"]
    return [
        f"  - containerPath: {path}",
        f"    hostPath: {path}",
        "    options:",
        *(f"    - {option}" for option in options),
    ]

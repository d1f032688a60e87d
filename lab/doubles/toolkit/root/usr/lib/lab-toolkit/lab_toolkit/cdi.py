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
    lines += ["  env:", "  - NVIDIA_CTK_LIBCUDA_DIR=/usr/lib/x86_64-linux-gnu", "  - NVIDIA_VISIBLE_DEVICES=void", "  - LAB_GPU_CDI=1"]
    lines += ["  mounts:"]
    for path in _READ_ONLY:
        lines += _mount(path, "ro")
    for path in _WRITABLE:
        lines += _mount(path, "rw")
    lines += ["devices:"]
    uuids = [(index, gpu["uuid"]) for index, gpu in enumerate(machine["gpus"])]
    for index, uuid in uuids:
        lines += _device(str(index), [(index, uuid)])
    for index, uuid in uuids:
        lines += _device(uuid, [(index, uuid)])
    lines += _device("all", uuids)
    lines += [f"kind: {KIND}", ""]
    return "\n".join(lines)


def device_names(text: str) -> list[str]:
    """Qualified names of the devices in a specification of ours."""
    names = [line.split(":", 1)[1].strip().strip('"') for line in text.splitlines() if line.strip().startswith("name:")]
    return [f"{KIND}={name}" for name in names]


def _device(name: str, gpus: list[tuple[int, str]]) -> list[str]:
    lines = ["- containerEdits:", "    deviceNodes:"]
    lines += [f"    - path: /dev/nvidia{index}" for index, _ in gpus]
    lines += ["    env:", *(f"    - LAB_GPU_{index}={uuid}" for index, uuid in gpus)]
    return [*lines, f'  name: "{name}"']


def _mount(path: str, mode: str) -> list[str]:
    options = [mode, "nosuid", "nodev", "rbind", "rprivate"]
    return [f"  - containerPath: {path}", f"    hostPath: {path}", "    options:", *(f"    - {option}" for option in options)]

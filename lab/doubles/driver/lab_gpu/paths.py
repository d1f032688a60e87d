"""Where the simulated GPU state lies: fixed on lab hosts, one directory of choice in tests (LAB_GPU_DIR)."""

from __future__ import annotations

import os

# Left in a container's root by the legacy runtime hook; its age against DAEMON_RELOAD tells whether the GPUs are lost.
LEGACY_MARKER = "/etc/lab-gpu-legacy"


def in_test() -> bool:
    """True where a directory stands for the host: no device nodes, no driver to load."""
    return bool(os.environ.get("LAB_GPU_DIR"))


def config_dir() -> str:
    """Directory of gpus.json and engine.json; read-only inside containers."""
    return os.environ.get("LAB_GPU_DIR") or "/etc/lab-gpu"


def state_dir() -> str:
    """Directory of run-time state (allocations); lost at a reboot like the memory of a real GPU."""
    return os.environ.get("LAB_GPU_DIR") or "/run/lab-gpu"


def gpus_file() -> str:
    return os.path.join(config_dir(), "gpus.json")


def engine_file() -> str:
    return os.path.join(config_dir(), "engine.json")


def allocations_dir(uuid: str) -> str:
    return os.path.join(state_dir(), "allocations", uuid)


def persistence_file() -> str:
    """There while nvidia-persistenced runs, or after nvidia-smi -pm 1."""
    return os.path.join(state_dir(), "persistence")


def order_file() -> str:
    """Written at boot when the cards come up in another order: their old numbers in the new order, with commas."""
    return os.path.join(state_dir(), "order")


def needs_reboot_file() -> str:
    """There from the installation of the driver's packages to the next boot: until then its module cannot be loaded."""
    return os.path.join(state_dir(), "needs-reboot")


def daemon_reload_file() -> str:
    """Touched by a systemd generator, so its age is that of the last daemon-reload."""
    return os.path.join(state_dir(), "daemon-reload")

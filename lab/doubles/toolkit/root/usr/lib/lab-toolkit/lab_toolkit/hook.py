"""nvidia-container-runtime-hook: the legacy way, for a `driver: nvidia` device request on a Docker without a CDI description.

Docker (before 29.2) puts it into the container's prestart hooks. The real one mounts the driver into the container; this one copies
the simulated driver there, so memory that such a container allocates is not seen by the others. Stoker itself uses CDI.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

_COPIES = ("/usr/bin/nvidia-smi", "/usr/lib/lab-gpu", "/etc/lab-gpu")


def main(arguments: list[str]) -> int:
    if arguments[:1] != ["prestart"]:
        return 0
    state = json.load(sys.stdin)
    config = json.loads(Path(state["bundle"], "config.json").read_text(encoding="utf-8"))
    environment = dict(entry.partition("=")[::2] for entry in config["process"].get("env", []))
    if environment.get("NVIDIA_VISIBLE_DEVICES", "void") in ("void", "", "none"):
        return 0
    root = Path(config["root"]["path"])
    for path in _COPIES:
        source, target = Path(path), root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
    # nvidia-smi in the container goes by it: its GPUs are lost at the next daemon-reload.
    (root / "etc/lab-gpu-legacy").touch()
    (root / "run/lab-gpu/allocations").mkdir(parents=True, exist_ok=True)
    return 0

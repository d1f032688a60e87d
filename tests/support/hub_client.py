"""The real huggingface_hub, as the engine image has it, beside the project's own packages.

Not installed: the wheels that the lab's image is made of are unpacked into the lab's cache, downloaded as the machine's own
pip is configured when they are not there yet.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import tempfile
import tomllib
from pathlib import Path

from lab.internet import wheels

CACHE_DEFAULT = "/var/cache/stoker-lab"
CONTENTS = Path(__file__).resolve().parents[2] / "lab" / "internet" / "contents.toml"
#: What the project's own environment does not have; all of them are Python only.
NAMES = ("huggingface_hub", "filelock", "fsspec", "tqdm")


@functools.cache
def site_packages() -> Path:
    """A directory for PYTHONPATH; made once a machine, by whoever comes first."""
    cache = Path(os.environ.get("STOKER_LAB_CACHE", CACHE_DEFAULT))
    image = tomllib.loads(CONTENTS.read_text(encoding="utf-8"))["images"]["vllm"]
    wanted = [line for line in image["python_packages"] if line.partition("==")[0] in NAMES]
    assert len(wanted) == len(NAMES)
    site = cache / ("hub-client-" + "-".join(line.partition("==")[2] for line in wanted))
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "hub-client.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not site.exists():
            work = Path(tempfile.mkdtemp(prefix="hub-client.", dir=cache))
            try:
                for wheel in wheels.download(wanted, cache / "internet-build" / "wheels", "3.13"):
                    wheels.unpack(wheel, work / "site", work / "bin")
                (work / "site").rename(site)
            finally:
                shutil.rmtree(work)
    return site

"""The real Compose of the tests: Debian forky's docker-compose, unpacked into the lab's cache.

Debian 12 has no Compose 2. `docker-compose config` needs neither a daemon nor the docker client, only glibc 2.34. The
package is downloaded as the machine's own apt is configured, verified by apt, and unpacked; nothing is installed.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from lab.internet.aptroot import AptRoot
from lab.internet.shell import BuildError, run

CACHE_DEFAULT = "/var/cache/stoker-lab"
_PROGRAM = "usr/libexec/docker/cli-plugins/docker-compose"


class ComposeUnavailable(RuntimeError):
    """The Compose of the tests cannot be had; says why and what to do. Never a reason to skip a test."""


def compose_config(file: Path, **environment: str) -> dict[str, Any]:
    """What `docker compose config` makes of a file. Raises AssertionError with its words when it refuses the file."""
    done = subprocess.run(
        [compose_program(), "--file", file, "config"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        # Nothing of this machine's variables is put in.
        env={"HOME": str(file.parent), "PATH": "/usr/bin:/bin", **environment},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr  # warnings too
    tree: dict[str, Any] = yaml.safe_load(done.stdout)
    return tree


@functools.cache
def compose_program() -> Path:
    """The unpacked program; made once a machine, by whoever comes first. Raises ComposeUnavailable."""
    cache = Path(os.environ.get("STOKER_LAB_CACHE", CACHE_DEFAULT))
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / "compose-forky" / "docker-compose"
    with (cache / "compose-forky.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            try:
                _fetch(program)
            except BuildError as error:
                raise ComposeUnavailable(
                    "the render tests need docker-compose of Debian forky, which this machine's mirror did not give; "
                    f"repair its apt configuration:\n{error}"
                ) from error
    return program


def _fetch(program: Path) -> None:
    """Download and unpack beside, then rename: an interrupted attempt leaves nothing under the final name."""
    work = Path(tempfile.mkdtemp(prefix="compose-forky.", dir=program.parents[1]))
    try:
        (package,) = AptRoot("forky", work / "apt", work / "archives").exactly(["docker-compose"])
        run(["dpkg-deb", "--extract", package.file, work / "root"])
        program.parent.mkdir(exist_ok=True)
        (work / "root" / _PROGRAM).rename(program)
    finally:
        shutil.rmtree(work)

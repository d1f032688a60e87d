"""What the internet machine serves: packages, registry, model hub. Made by lab.internet on this computer, mounted into the machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lab.machines import daemon, ui
from lab.machines.paths import ROOT, cache
from lab.machines.shell import stream


def build(real: Sequence[str] = ()) -> None:
    """Bring the content up to date; next to no time when it is. Raises LabError with the end of what the builder said.

    `real`: the options of lab.internet.build for real engines.
    """
    argv = ["nice", "-n", "5", sys.executable, "-m", "lab.internet.build", "--cache", str(cache()), *real]
    stream(
        argv,
        ui.say,
        cwd=ROOT,
        env={"DOCKER_HOST": daemon.DOCKER_HOST},
        what="making the content of the internet machine",
    )


def folder() -> Path:
    """The directory that the internet machine sees, read-only, as /srv/internet."""
    return cache() / "internet"


def keyring() -> Path:
    """The public key that signs the lab's package repositories."""
    return folder() / "keys/lab-archive-keyring.gpg"


def engine(name: str) -> Path:
    """Where a real engine lies: `vllm-cpu` has its root file system in root/, `llama-server` its program."""
    return folder() / "engines" / name

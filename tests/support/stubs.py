"""Small programs that stand first in PATH, so that a host's scripts can be executed here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

#: Limit for a script, in seconds.
LIMIT = 30


class Stubs:
    """A directory of programs, and dash to run scripts with them. ``path``: where else programs are looked for."""

    def __init__(self, folder: Path, path: str = "/usr/bin:/bin") -> None:
        self.folder, self.path = folder, path
        folder.mkdir()

    def add(self, name: str, body: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def prints(self, name: str, text: str, status: int = 0) -> None:
        (self.folder / f"{name}.txt").write_text(text)
        self.add(name, f"cat {self.folder}/{name}.txt; exit {status}")

    def notes(self, *names: str) -> None:
        """Programs that succeed and do nothing but note how they were called."""
        for name in names:
            self.add(name, f'echo "{name} $*" >>{self.folder}/called.txt')

    def called(self) -> list[str]:
        file = self.folder / "called.txt"
        return file.read_text().splitlines() if file.exists() else []

    def link(self, *names: str) -> None:
        """The machine's own programs, where nothing else of it is to be found."""
        for name in names:
            target = shutil.which(name)
            assert target is not None
            (self.folder / name).symlink_to(target)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/dash", "-c", script],
            env={**os.environ, "PATH": f"{self.folder}:{self.path}".rstrip(":")},
            input="",
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

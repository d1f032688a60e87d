"""A program at a terminal, and a person who answers its question with yes."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from support.commands import Done

QUESTION = "Do this? [y/N]"


def answered_yes(*argv: str, cwd: Path, seconds: float = 120) -> Done:
    """Run a program to its end; everything that it prints is in ``out``."""
    begun = time.monotonic()
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        said, answered = b"", 0
        while time.monotonic() < begun + seconds:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    said += os.read(ours, 65536)
                except OSError:  # the other side is closed: the program has ended
                    break
            if said.count(QUESTION.encode()) > answered:
                os.write(ours, b"y\n")
                answered += 1
        else:
            process.kill()
            pytest.fail(f"no end within {seconds:.0f} s, killed: {argv}\n{said.decode(errors='replace')}")
    os.close(ours)
    return Done(argv, process.returncode, said.decode("utf-8", "replace"), "", time.monotonic() - begun)

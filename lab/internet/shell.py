"""Run a program and, when it fails, say what ran and what it printed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class BuildError(Exception):
    """The lab's internet could not be built. The text says what failed, why, and what to do."""


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
) -> str:
    """Run `argv` and return its standard output.

    Raises:
        BuildError: the program is missing, or ended with a status other than 0; the last lines it printed are
        in the text.
    """
    words = [str(word) for word in argv]
    full_env = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(words, env=full_env, cwd=cwd, input=stdin, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise BuildError(f"program {words[0]!r} is not installed on this machine") from error
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()[-12:]
        reason = tail[-1] if tail else "it printed nothing"
        text = f"`{' '.join(words)[:120]}` ended with status {done.returncode}: {reason}"
        raise BuildError("\n".join([text, *tail]))
    return done.stdout.decode(errors="replace")

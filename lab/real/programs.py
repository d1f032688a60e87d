"""Runs the programs that need vLLM's environment (parse_commands.py, those of lab/doubles/vllm) with its Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.internet.shell import run

QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def run_program(
    python: Sequence[str], program: Path, *arguments: str, released: str | Path = "", stdin: str = ""
) -> str:
    """What `program` prints.

    ``python``: the interpreter, as the words of a command; it may see another file system than this process. So the program goes
    to it as a text, and nothing has to be mounted for it. ``released``: the folder of a release's Python files, as the interpreter
    sees it; empty for the vLLM that is installed.

    Raises:
        BuildError: the interpreter or the program failed.
    """
    # -P: the current directory is no place for modules; the lab has folders called vllm.
    command = [*python, "-P", "-c", program.read_text(encoding="utf-8"), *arguments]
    return run(command, env={**QUIET, "PYTHONPATH": str(released)}, stdin=stdin.encode())

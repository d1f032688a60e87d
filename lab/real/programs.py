"""Runs the programs that need vLLM's environment (parse_commands.py, those of lab/doubles/vllm) with the Python of real vLLM."""

from __future__ import annotations

from pathlib import Path

from lab.internet.shell import run
from lab.real import root

QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
RELEASED = "/work"


def run_program(program: Path, *arguments: str, released: Path | None = None, stdin: str = "") -> str:
    """What `program` prints.

    ``released``: the folder of a release's Python files, which are then used in place of the vLLM that is installed.

    Raises:
        BuildError: the program failed.
    """
    enter = root.command(
        {released: RELEASED} if released else {}, QUIET | ({"PYTHONPATH": RELEASED} if released else {})
    )
    # As a text: nothing has to be mounted for it. -P: the current directory is no place for modules; the lab has folders called vllm.
    command = [*enter, "python3", "-P", "-c", program.read_text(encoding="utf-8"), *arguments]
    return run(command, stdin=stdin.encode())

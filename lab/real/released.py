"""A released vLLM as Python files: what its own argument parser needs, without the compiled code and without a GPU.

    python3 -m lab.real.released 0.19.1 CACHE     # prints the folder to put on PYTHONPATH

The wheel comes from whatever index pip is configured with. Of its 433 MB only the Python files stay (26 MB on the disk).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from lab.internet import wheels
from lab.internet.shell import BuildError

PYTHON = "3.11"
"""Of the environment that runs the files."""

COMPANIONS = ("diskcache==5.6.3", "gguf==0.19.0")
"""What 0.19.1 imports beside its parser and the newer vLLM of the environment no longer requires. Both are pure Python.

diskcache is the release's own pin; of gguf it takes any version from 0.17 on.
"""

COMPLETE = "complete.json"
"""In the folder: what it was made from."""


def fetch(version: str, cache: Path) -> Path:
    """The folder with the Python files of the released vLLM ``version``; made once, then taken from ``cache``.

    With the folder on PYTHONPATH `import vllm` and `importlib.metadata.version("vllm")` give the release.

    Raises:
        BuildError: pip could not download it, or what it downloaded is not a vLLM.
    """
    requirements = [f"vllm=={version}", *COMPANIONS]
    folder = cache / f"vllm-{version}"
    if _made_from(folder) == requirements:
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    # Beside its destination: the wheel is too big for a /tmp in memory, and a rename must not cross file systems.
    with tempfile.TemporaryDirectory(prefix=f".vllm-{version}-", dir=cache) as work:
        made = Path(work) / "made"
        for wheel in _download(requirements, Path(work) / "wheels"):
            _unpack(wheel, made)
        if not (made / "vllm/entrypoints/cli/serve.py").is_file():
            raise BuildError(
                f"what pip downloaded as vllm {version} has no `vllm serve` (vllm/entrypoints/cli/serve.py)"
            )
        (made / COMPLETE).write_text(json.dumps(requirements) + "\n", encoding="utf-8")
        _put(made, folder)
    return folder


def _made_from(folder: Path) -> list[str] | None:
    try:
        found: list[str] = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _download(requirements: list[str], folder: Path) -> list[Path]:
    try:
        return wheels.download(requirements, folder, PYTHON)
    except BuildError as error:
        raise BuildError(
            f"the released vLLM could not be downloaded ({', '.join(requirements)}); "
            f"`pip config list` shows where pip looks\n{error}"
        ) from error


def _unpack(wheel: Path, folder: Path) -> None:
    """Python files and metadata: no compiled code, no tuning tables."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            archive.extractall(
                folder,
                [name for name in names if name.endswith(".py") or name.partition("/")[0].endswith(".dist-info")],
            )
    except zipfile.BadZipFile as error:
        raise BuildError(f"{wheel.name}, as pip downloaded it, is not a wheel: {error}") from error


def _put(made: Path, folder: Path) -> None:
    """Rename into place. Another process may have been faster: its folder is as good."""
    if folder.exists() and _made_from(folder) != _made_from(made):
        shutil.rmtree(folder)
    try:
        made.rename(folder)
    except OSError:
        if _made_from(folder) != _made_from(made):
            raise


def main() -> int:
    """Print the folder; returns the exit status."""
    if len(sys.argv) != 3:
        print("usage: python3 -m lab.real.released VERSION CACHE", file=sys.stderr)
        return 2
    try:
        print(fetch(sys.argv[1], Path(sys.argv[2])))
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Puts a written fleet where the person wants it; nothing of theirs is replaced without a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path


class NotWritten(Exception):
    """Nothing was written: why, and what to do."""


def put(directory: Path, files: Mapping[str, str], ask: Callable[[str], bool]) -> list[Path]:
    """Write files below a directory. ``ask`` decides whether files that are there and differ are replaced. Raises NotWritten."""
    stray = [name for name in _group_files(directory) if name not in files]
    if stray:
        raise NotWritten(
            f"{directory} holds {', '.join(stray)}, which would be read as a part of this fleet; move it away, or name another directory by --output"
        )
    there = [name for name, text in files.items() if (directory / name).exists() and not _is(directory / name, text)]
    if there and not ask(f"{directory}: {', '.join(there)} would be replaced. Replace?"):
        raise NotWritten(f"{directory} was left as it is; name another directory by --output")
    written = []
    try:
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise NotWritten(f"{error.filename} could not be written: {error.strerror}") from None
    return written


def _is(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _group_files(directory: Path) -> list[str]:
    return [f"group_data/{file.name}" for file in sorted((directory / "group_data").glob("*.py"))]

"""Parts of the built content: each is made once for its inputs, kept in the cache, and swapped in whole.

A part lies in `<served>/parts/<name>-<digest>/`; links beside `parts` point into it. They are relative, so
they hold wherever the served directory is mounted, and a running machine sees new content at the next
request.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

Builder = Callable[[Path, Mapping[str, Path]], None]
"""Fills an empty directory; the mapping gives the directories of the parts that it needs, by name."""


@dataclass(frozen=True)
class Part:
    """A directory that `build` fills, and what its content depends on."""

    name: str
    build: Builder
    inputs: tuple[Path, ...]
    """Files and directories of the project that decide the content."""
    settings: str = ""
    """What else decides it, as text."""
    needs: tuple[str, ...] = ()
    """Parts that must be ready first; their digests are inputs too."""
    links: dict[str, str] = field(default_factory=dict)
    """Path in the served directory -> path inside the part that it points to."""


def digest_inputs(paths: Iterable[Path], extra: Iterable[str] = ()) -> str:
    """A short digest of the names, modes and contents of all files below `paths`. A path that does not exist
    counts as empty.
    """
    total = hashlib.sha256()
    for text in extra:
        total.update(text.encode() + b"\0")
    for path in paths:
        files = sorted(file for file in path.rglob("*") if "__pycache__" not in file.parts) if path.is_dir() else [path]
        for file in files:
            total.update(str(file.relative_to(path.parent)).encode() + b"\0")
            if file.is_symlink():
                total.update(os.readlink(file).encode())
            elif file.is_file():
                total.update(f"{file.stat().st_mode & 0o111:o}".encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def digests(parts: list[Part]) -> dict[str, str]:
    """Each part's digest; `parts` lists every part after the ones that it needs."""
    found: dict[str, str] = {}
    for part in parts:
        found[part.name] = digest_inputs(part.inputs, [part.name, part.settings, *(found[need] for need in part.needs)])
    return found


class Store:
    """The served directory with its parts."""

    def __init__(self, served: Path) -> None:
        self.served = served
        self.folder = served / "parts"
        self._print_lock = threading.Lock()

    def path(self, name: str, digest: str) -> Path:
        """Where the part of that name and digest lies, or will lie."""
        return self.folder / f"{name}-{digest}"

    def say(self, text: str) -> None:
        """Print one line of progress."""
        with self._print_lock:
            print(f"internet: {text}", flush=True)

    def build(self, parts: list[Part], *, complete: bool, keep: Iterable[Part] = (), workers: int = 2) -> list[str]:
        """Build what is missing, parts that do not need one another at the same time; return the names of the
        built ones.

        `complete` says that `parts` are all that is wanted: whatever else lies in the store is then removed, but for up-to-date parts
        of `keep`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(".building-*"):
            shutil.rmtree(left_over)
        digest = digests(parts)
        ready = {part.name for part in parts if self.path(part.name, digest[part.name]).is_dir()}
        waiting = [part for part in parts if part.name not in ready]
        running: dict[Future[None], Part] = {}
        built: list[str] = []
        with ThreadPoolExecutor(workers) as pool:
            while waiting or running:
                for part in [part for part in waiting if ready.issuperset(part.needs)]:
                    waiting.remove(part)
                    needed = {need: self.path(need, digest[need]) for need in part.needs}
                    running[pool.submit(self._build_one, part, digest[part.name], needed)] = part
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    part = running.pop(future)
                    try:
                        future.result()
                    except BaseException:
                        # What runs is let finish (it stays in the cache); nothing new is started.
                        waiting.clear()
                        raise
                    ready.add(part.name)
                    built.append(part.name)
        for part in parts:
            self._link(part, digest[part.name])
        if complete:
            kept = digests(list(keep)) | digest
            self._remove_others({self.path(name, value).name for name, value in kept.items()})
        return built

    def _build_one(self, part: Part, digest: str, needed: Mapping[str, Path]) -> None:
        started = time.monotonic()
        self.say(f"{part.name} ...")
        work = self.folder / f".building-{part.name}"
        work.mkdir(mode=0o755)
        part.build(work, needed)
        work.rename(self.path(part.name, digest))
        self.say(f"{part.name} built in {time.monotonic() - started:.1f} s")

    def _link(self, part: Part, digest: str) -> None:
        target_root = self.path(part.name, digest)
        for name, inside in part.links.items():
            link = self.served / name
            target = os.path.relpath(target_root / inside, link.parent)
            if link.is_symlink() and os.readlink(link) == target:
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh = link.with_name(f".{link.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(target)
            fresh.replace(link)

    def _remove_others(self, keep: set[str]) -> None:
        for folder in self.folder.iterdir():
            if folder.name not in keep:
                shutil.rmtree(folder)

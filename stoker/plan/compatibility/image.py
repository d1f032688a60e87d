"""What an image's name says of the engine in it: its version, its CUDA, whose it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stoker.engine.registry import engine_of, engines


def official() -> dict[str, str]:
    """The publishers' own repositories -> engine. A mirror keeps the last two parts of the name."""
    return {repository: name for name, engine in engines() for repository in engine.published.repositories}


@dataclass(frozen=True)
class EngineVersion:
    """The engine's release, as far as the image's name tells. ``assumed`` says why it is not certain; empty: it is."""

    engine: str
    version: str
    cuda: int  #: major version of the CUDA that the image is built on
    assumed: str = ""
    fork: bool = False  #: not the publisher's image
    newest: bool = False  #: a moving tag of the publisher: this release or a later one


def engine_version(image: str, engine: str | None = None) -> EngineVersion:
    """The version in the image's tag; else an assumption, with its reason. ``engine``: what is described; None: by the image's name."""
    name = image.partition("@")[0]
    repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
    publisher = official().get("/".join(repository.split("/")[-2:]))
    engine = engine or publisher or ("ollama" if "ollama" in repository.lower() else "vllm")
    published = engine_of(engine).published
    newest, assumed = False, ""
    found = re.match(published.tag, tag)
    if found:
        version = found.group(1)
    elif publisher and (tag in ("latest", "rocm") or tag.startswith("nightly") or (not tag and "@" not in image)):
        version, newest = published.newest, True
        assumed = f"the tag {tag or 'latest'!r} moves; {version} or newer is assumed"
    else:
        version = published.pinned
        why = f"the tag {tag!r} names no release" if tag else "a digest alone names no release"
        assumed = f"{why}; {version} is assumed"
    return EngineVersion(engine, version, _cuda(tag) or published.cuda(version), assumed, publisher is None, newest)


def release(version: str) -> tuple[int, ...]:
    """``0.19.1`` as numbers that compare; a missing last part counts as 0."""
    return (*(int(part) for part in version.split(".")), 0, 0)[:3]


def _cuda(tag: str) -> int | None:
    named = re.search(r"-cu(\d{2})\d|cuda(\d{2})(?!\d)", tag)
    return int(named.group(1) or named.group(2)) if named else None

"""What an image's name says of the engine in it: its version, its CUDA, whose it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from stoker.spec import vllm

Engine = Literal["vllm", "ollama"]

#: The publishers' own repositories on Docker Hub. A mirror keeps the last two parts of the name.
OFFICIAL: dict[str, Engine] = {
    "vllm/vllm-openai": "vllm",
    "vllm/vllm-openai-cpu": "vllm",
    "ollama/ollama": "ollama",
}

#: Newest releases that the facts of the table were gathered from: what `latest` is taken for, at least.
NEWEST: dict[Engine, str] = {"vllm": "0.33.0", "ollama": "0.32.15"}

#: What a tag without a version is taken for: the releases that group_data/all.py pins.
PINNED: dict[Engine, str] = {"vllm": str(vllm.known()["version"]), "ollama": "0.32.15"}

#: From this release on vLLM's images are built on CUDA 13 (pull request vllm#39878); `-cuNNN` in a tag says otherwise.
VLLM_CUDA_13 = (0, 20, 0)

#: One digit before the first point: both engines' releases begin with 0, and a tag such as 25.10 is a date.
_VERSION = re.compile(r"v?(\d\.\d+(?:\.\d+)?)(?:\.post\d+)?(?=$|[-+_])")


@dataclass(frozen=True)
class EngineVersion:
    """The engine's release, as far as the image's name tells. ``assumed`` says why it is not certain; empty: it is."""

    engine: Engine
    version: str
    cuda: int  #: major version of the CUDA that the image is built on
    assumed: str = ""
    fork: bool = False  #: not the publisher's image
    newest: bool = False  #: a moving tag of the publisher: this release or a later one


def engine_version(image: str, engine: Engine | None = None) -> EngineVersion:
    """The version in the image's tag; else an assumption, with its reason. ``engine``: what is described; None: by the image's name."""
    name = image.partition("@")[0]
    repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
    official = OFFICIAL.get("/".join(repository.split("/")[-2:]))
    engine = engine or official or ("ollama" if "ollama" in repository.lower() else "vllm")
    newest, assumed = False, ""
    found = _VERSION.match(tag)
    if found:
        version = found.group(1)
    elif official and (tag in ("latest", "rocm") or tag.startswith("nightly") or (not tag and "@" not in image)):
        version, newest = NEWEST[engine], True
        assumed = f"the tag {tag or 'latest'!r} moves; {version} or newer is assumed"
    else:
        version = PINNED[engine]
        why = f"the tag {tag!r} names no release" if tag else "a digest alone names no release"
        assumed = f"{why}; {version} is assumed"
    return EngineVersion(engine, version, _cuda(engine, version, tag), assumed, official is None, newest)


def release(version: str) -> tuple[int, ...]:
    """``0.19.1`` as numbers that compare; a missing last part counts as 0."""
    return (*(int(part) for part in version.split(".")), 0, 0)[:3]


def _cuda(engine: Engine, version: str, tag: str) -> int:
    named = re.search(r"-cu(\d{2})\d", tag)
    if named:
        return int(named.group(1))
    # Ollama's image holds libraries of both 12 and 13 and picks what the driver takes.
    return 13 if engine == "vllm" and release(version) >= VLLM_CUDA_13 else 12

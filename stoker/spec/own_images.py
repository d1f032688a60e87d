"""Images that no registry has: the hosts build them from the directories below images/ of this project."""

from __future__ import annotations

from pathlib import Path

#: images/ stands beside the package, as templates/ does, for people to read and edit.
IMAGES = Path(__file__).resolve().parents[2] / "images"

#: Fetches model files, where no engine's image on the host can.
FETCH = "stoker/fetch:2.4.0-1"

#: A repository that begins with this is built, not pulled.
PREFIX = "stoker/"


def own_name(image: str) -> str:
    """``stoker/transformers:5.19.0-1`` -> ``transformers``; empty for any other image."""
    repository = image.partition("@")[0].partition(":")[0]
    return repository.removeprefix(PREFIX) if repository.startswith(PREFIX) else ""


def own_names() -> list[str]:
    """The images that can be built."""
    return sorted(file.parent.name for file in IMAGES.glob("*/Dockerfile"))


def refuse_unknown(image: str) -> str:
    """The image itself. Raises ValueError for one of ours that cannot be built."""
    name = own_name(image)
    if name and "@" in image:
        raise ValueError(f"{PREFIX}{name} is built on the host and has no digest before; name it by a tag alone")
    if name and name not in own_names():
        known = ", ".join(f"{PREFIX}{one}" for one in own_names())
        raise ValueError(
            f"{PREFIX}... is built from a directory of images/, and there is no images/{name}; write {known}"
        )
    return image

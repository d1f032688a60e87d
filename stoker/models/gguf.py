"""Names of GGUF files. A large model is split, and the first part names the whole: llama.cpp finds the others beside it (``gguf-split``)."""

from __future__ import annotations

import re

_SPLIT = re.compile(r"-00001-of-(?P<parts>\d{5})\.gguf$")


def parts_of(file: str) -> str:
    """A pattern for all parts of a model, from the name of its only file or of its first part."""
    return _SPLIT.sub(r"-?????-of-\g<parts>.gguf", file)


def names_of(file: str) -> list[str]:
    """All parts by name."""
    found = _SPLIT.search(file)
    if not found:
        return [file]
    return [
        f"{file[: found.start()]}-{part:05d}-of-{found['parts']}.gguf" for part in range(1, int(found["parts"]) + 1)
    ]

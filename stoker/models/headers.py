"""What safetensors files at hand say of themselves: bytes of tensors by data type, and whether the files are whole.

The format: 8 bytes with the length N of the header (little-endian), N bytes of JSON, then the tensors' bytes; offsets in the header
count from the header's end (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
#: The format's own limit of a header's length, in bytes (safetensors ``MAX_HEADER_SIZE``).
LONGEST_HEADER = 100_000_000
_LFS = b"version https://git-lfs"


class BadWeights(Exception):
    """A weight file cannot be used: which, why, and what to do."""


def tensor_bytes(directory: Path) -> dict[str, int]:
    """Data type -> bytes of all tensors in the model's safetensors files. Empty: there are no such files. Raises BadWeights."""
    files = weight_files(directory)
    total: Counter[str] = Counter()
    for file in files:
        total.update(_of_file(file))
    return dict(total)


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the model: those that the index names, or else all. Raises BadWeights if one is not there."""
    index = directory / INDEX
    if not index.is_file():
        return sorted(directory.glob("*.safetensors"))
    try:
        names = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadWeights(f"{index} cannot be read: fetch it again") from None
    lacking = [name for name in names if not (directory / name).is_file()]
    if lacking:
        raise BadWeights(
            f"{index} names {', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not there: fetch the model again"
        )
    return [directory / name for name in names]


def _of_file(file: Path) -> Mapping[str, int]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(len(_LFS))
        if start == _LFS:
            raise BadWeights(
                f"{file} is a Git LFS pointer, not the weights: run `git lfs pull`, or fetch the file again"
            )
        stream.seek(0)
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > LONGEST_HEADER:
                raise ValueError
            header = json.loads(stream.read(length))
            spans = [_span(entry) for name, entry in header.items() if name != "__metadata__"]
        except (struct.error, ValueError, KeyError, TypeError, AttributeError):
            raise BadWeights(
                f"{file} has no safetensors header: it is half a file or another format; fetch it again"
            ) from None
    end = 8 + length + max((end for _, _, end in spans), default=0)
    if end != size:
        raise BadWeights(f"{file} has {size} bytes, its header says {end}: fetch it again")
    found: Counter[str] = Counter()
    for dtype, begin, stop in spans:
        found[dtype] += stop - begin
    return found


def _span(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    """Data type, begin and end of one tensor."""
    begin, end = entry["data_offsets"]
    return str(entry["dtype"]), int(begin), int(end)

"""The metadata of a GGUF file, version 2 or 3: what llama.cpp and Ollama know of a model before they read its tensors."""

from __future__ import annotations

import struct
from typing import Any

MAGIC = b"GGUF"
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of values, as the format numbers them, in the letters of struct."""
_TEXT, _LIST = 8, 9


def read_metadata(content: bytes) -> dict[str, Any]:
    """Key -> value. Raises ValueError for what is no GGUF file, or ends in the middle."""
    if content[:4] != MAGIC:
        raise ValueError(f"invalid magic characters: '{content[:4].decode('latin-1')}', expected 'GGUF'")
    reader = _Reader(content, 16)
    try:
        count = reader.plain("Q")
        return {reader.text(): reader.value(reader.plain("I")) for _ in range(count)}
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"failed to read key-value pairs: {error}") from error


class _Reader:
    def __init__(self, content: bytes, at: int) -> None:
        self.content, self.at = content, at

    def plain(self, letter: str) -> Any:
        (value,) = struct.unpack_from(f"<{letter}", self.content, self.at)
        self.at += struct.calcsize(f"<{letter}")
        return value

    def text(self) -> str:
        length = self.plain("Q")
        self.at += length
        return self.content[self.at - length : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            item, count = self.plain("I"), self.plain("Q")
            return [self.value(item) for _ in range(count)]
        return self.plain(_PLAIN[kind])

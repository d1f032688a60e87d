"""A stand-in tokenizer: words, numbers, marks; long words in pieces of six. Roughly what a real vocabulary makes of plain text."""

from __future__ import annotations

import re
import zlib

_PIECE = re.compile(r"[^\W\d_]{1,6}|\d{1,3}|[^\w\s]|_|\s{2,}")
_WIDE = re.compile(r"([぀-ヿ㐀-鿿가-힯])")


def tokenize(text: str) -> list[str]:
    """Pieces of the text; one for each CJK character."""
    if not text.isascii():
        text = _WIDE.sub(r" \1 ", text)
    return _PIECE.findall(text)


def token_ids(pieces: list[str], vocabulary: int) -> list[int]:
    """A stable number below `vocabulary` for each piece."""
    return [zlib.crc32(piece.encode()) % vocabulary for piece in pieces]

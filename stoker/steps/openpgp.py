"""OpenPGP public keys: a downloaded repository key is compared with the pinned fingerprint, and nothing else of the download is kept.

Done here because a bare host has no gpg. Only what that needs is read (RFC 4880, sections 4.2, 6.2 and 12.2).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

_BEGIN, _END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
_PUBLIC_KEY = 6  # tag of the packet that begins a key


def fingerprint(armored: str) -> str:
    """40 hex digits, upper case, of the first public key in an ASCII-armored text. Raises ValueError."""
    return next(iter(keys(armored)))


def keys(armored: str) -> dict[str, str]:
    """Fingerprint -> that key alone, armored, of every key in a text. Raises ValueError when there is none.

    apt trusts every key in a file, so a key that was added to the pinned one must not get there with it.
    """
    found: dict[str, bytes] = {}
    for data in _blocks(armored):
        current = ""
        for tag, packet, body in _packets(data):
            if tag == _PUBLIC_KEY:
                if body[:1] != b"\x04":
                    raise ValueError("only version 4 keys are supported")
                current = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
                found[current] = b""
            elif not current:
                raise ValueError("the block does not begin with a public key")
            found[current] += packet
    if not found:
        raise ValueError("not an ASCII-armored OpenPGP public key")
    return {name: _armored(data) for name, data in found.items()}


def _armored(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    checksum = base64.b64encode(_crc24(data).to_bytes(3, "big")).decode()
    return "\n".join([_BEGIN, "", *lines, f"={checksum}", _END, ""])


def _crc24(data: bytes) -> int:
    """RFC 4880, section 6.1. gpg 2.2 does not read an armor without it."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
    return crc & 0xFFFFFF


def _blocks(armored: str) -> Iterator[bytes]:
    lines = [line.strip() for line in armored.splitlines()]
    while _BEGIN in lines:
        lines = lines[lines.index(_BEGIN) + 1 :]
        if _END not in lines:
            raise ValueError("the armored block has no end")
        block, lines = lines[: lines.index(_END)], lines[lines.index(_END) + 1 :]
        body = block[block.index("") + 1 :] if "" in block else block  # after the armor's own headers
        yield base64.b64decode("".join(line for line in body if not line.startswith("=")), validate=True)


def _packets(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Tag, the whole packet, and its body."""
    while data:
        if len(data) < 2 or not data[0] & 0x80:
            raise ValueError("not an OpenPGP packet")
        tag, head, length = _header(data)
        end = head + length
        if len(data) < end:
            raise ValueError("the block is cut off")
        yield tag, data[:end], data[head:end]
        data = data[end:]


def _header(data: bytes) -> tuple[int, int, int]:
    """Tag, length of the header, length of the body."""
    if data[0] & 0x40:  # new format
        tag, first = data[0] & 0x3F, data[1]
        if first < 192:
            return tag, 2, first
        if first < 224:
            return tag, 3, ((first - 192) << 8) + int.from_bytes(data[2:3], "big") + 192
        if first == 255:
            return tag, 6, int.from_bytes(data[2:6], "big")
        raise ValueError("a packet in parts")
    tag, size = (data[0] >> 2) & 0x0F, (1, 2, 4, 0)[data[0] & 3]
    if not size:
        raise ValueError("a packet of unknown length")
    return tag, 1 + size, int.from_bytes(data[1 : 1 + size], "big")

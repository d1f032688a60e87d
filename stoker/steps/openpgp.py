"""The fingerprint of an OpenPGP public key, so that a downloaded repository key can be compared with the pinned one.

Done here because a bare host has no gpg. Only what that needs is read (RFC 4880, sections 4.2, 6.2 and 12.2).
"""

from __future__ import annotations

import base64
import hashlib


def fingerprint(armored: str) -> str:
    """40 hex digits, upper case, of the first public key in an ASCII-armored block. Raises ValueError."""
    lines = [line.strip() for line in armored.strip().splitlines()]
    try:
        start = lines.index("-----BEGIN PGP PUBLIC KEY BLOCK-----")
        end = lines.index("-----END PGP PUBLIC KEY BLOCK-----")
    except ValueError:
        raise ValueError("not an ASCII-armored OpenPGP public key") from None
    block = lines[start + 1 : end]
    body = block[block.index("") + 1 :] if "" in block else block
    data = base64.b64decode("".join(line for line in body if not line.startswith("=")), validate=True)
    packet = _first_packet(data)
    if not packet or packet[0] != 4:
        raise ValueError("only version 4 keys are supported")
    return hashlib.sha1(b"\x99" + len(packet).to_bytes(2, "big") + packet).hexdigest().upper()


def _first_packet(data: bytes) -> bytes:
    """The body of the first packet, which must be a public key (tag 6)."""
    if len(data) < 6 or not data[0] & 0x80:
        raise ValueError("not an OpenPGP packet")
    if data[0] & 0x40:  # new format
        tag, first = data[0] & 0x3F, data[1]
        if first < 192:
            offset, length = 2, first
        elif first < 224:
            offset, length = 3, ((first - 192) << 8) + data[2] + 192
        else:
            offset, length = 6, int.from_bytes(data[2:6], "big")
    else:
        tag, size = (data[0] >> 2) & 0x0F, (1, 2, 4, 0)[data[0] & 3]
        if not size:
            raise ValueError("a packet of unknown length")
        offset, length = 1 + size, int.from_bytes(data[1 : 1 + size], "big")
    if tag != 6 or len(data) < offset + length:
        raise ValueError("the block does not begin with a public key")
    return data[offset : offset + length]

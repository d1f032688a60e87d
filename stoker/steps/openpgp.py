"""OpenPGP public keys: a downloaded repository key is compared with the pinned fingerprint, and nothing else of the download is kept.

Done here because a bare host has no gpg. Only what that needs is read (RFC 4880, sections 4.2, 6.2 and 12.2).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

_BEGIN, _END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
_PUBLIC_KEY = 6  # tag of the packet that begins a key
_SUBKEY, _SIGNATURE = 14, 2

#: Signature types by which a key says something of itself: of a name (0x10 to 0x13), of itself, of a subkey (RFC 4880, section 5.2.1).
_SELF, _BINDING = (0x10, 0x11, 0x12, 0x13, 0x1F), 0x18
#: Subpackets (section 5.2.3.1): when it was made, seconds that the key lasts, who made it, what the key may do, who (fingerprint).
_MADE, _LASTS, _ISSUER, _FLAGS, _ISSUER_FINGERPRINT = 2, 9, 16, 27, 33
_MAY_SIGN = 0x02


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


def ends(armored: str) -> dict[str, int | None]:
    """Fingerprint -> when nothing can be signed with that key any more, seconds since the epoch; None: never. Raises ValueError.

    The key ends, or the last of its parts that may sign. What a key says of itself is read, not verified: the text is one that
    was compared with the pinned fingerprint.
    """
    found: dict[str, int | None] = {}
    for data in map(_only_block, keys(armored).values()):
        parts: list[_Part] = []
        for tag, _, body in _packets(data):
            if tag in (_PUBLIC_KEY, _SUBKEY) and body[:1] == b"\x04":
                parts.append(
                    _Part(
                        hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).digest(),
                        int.from_bytes(body[1:5], "big"),
                    )
                )
            elif tag == _SIGNATURE and body[:1] == b"\x04":
                parts[-1].reads(body, parts[0].fingerprint)
        primary, signing = parts[0].end, [part.end for part in parts if part.may_sign]
        last = None if None in signing or not signing else max(end for end in signing if end is not None)
        limits = [end for end in (primary, last) if end is not None]
        found[parts[0].fingerprint.hex().upper()] = min(limits) if limits else None
    return found


@dataclass
class _Part:
    """A key or one of its subkeys: what its newest signature of itself says."""

    fingerprint: bytes
    created: int
    may_sign: bool = False
    end: int | None = None
    _newest: int = -1

    def reads(self, signature: bytes, issuer: bytes) -> None:
        """A version 4 signature packet's body (section 5.2.3). One of somebody else, or of another kind, says nothing."""
        hashed = int.from_bytes(signature[4:6], "big")
        rest = 6 + hashed
        unhashed = int.from_bytes(signature[rest : rest + 2], "big")
        said = dict(_subpackets(signature[6:rest]))
        who = {**dict(_subpackets(signature[rest + 2 : rest + 2 + unhashed])), **said}
        own = (
            who.get(_ISSUER_FINGERPRINT, b"\x04" + issuer)[1:] == issuer
            and who.get(_ISSUER, issuer[-8:]) == issuer[-8:]
        )
        made = int.from_bytes(said.get(_MADE, b""), "big")
        if not own or signature[1] not in (*_SELF, _BINDING) or made < self._newest:
            return
        lasts = int.from_bytes(said.get(_LASTS, b""), "big")
        self._newest, self.end = made, self.created + lasts if lasts else None
        self.may_sign = bool(said.get(_FLAGS, b"\x00")[0] & _MAY_SIGN)


def _only_block(armored: str) -> bytes:
    return next(_blocks(armored))


def _subpackets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content; the length has one, two or five octets (section 5.2.3.1)."""
    while data:
        head, length = 1, data[0]
        if 192 <= length < 255:
            head, length = 2, ((length - 192) << 8) + int.from_bytes(data[1:2], "big") + 192
        elif length == 255:
            head, length = 5, int.from_bytes(data[1:5], "big")
        if not length or len(data) < head + length:
            raise ValueError("a signature is cut off")
        yield data[head] & 0x7F, data[head + 1 : head + length]
        data = data[head + length :]


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

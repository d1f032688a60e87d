"""A new key and what the description says of it."""

from __future__ import annotations

import hashlib
import secrets

#: Bytes of chance in a key: too many to be tried, so that a plain SHA-256 of it gives nothing away.
_BYTES = 32
#: Makes a key that was published by mistake recognisable, for a person and for a scanner of secrets.
PREFIX = "sk-stoker-"


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(_BYTES)


def hash_of(key: str) -> str:
    """As templates/gateway/keys.js makes it of what a client presents."""
    return hashlib.sha256(key.encode()).hexdigest()


def line_of(name: str, key: str) -> str:
    """One entry of a gateway's ``keys`` in group_data."""
    return f'{{"name": "{name}", "sha256": "{hash_of(key)}"}},'

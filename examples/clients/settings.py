"""The settings that `stoker endpoints` writes, as a client of OpenAI's package."""

from __future__ import annotations

import os
import sys

from openai import OpenAI


def client(prefix: str, retries: int = 4) -> tuple[OpenAI, str]:
    """A client and its model: LLAMA, QWEN, or another pool's name; EMBEDDING for embeddings.

    The package tries again by itself after 408, 409, 429, 5xx and broken connections, and waits as long as Retry-After says.
    """
    address = "EMBEDDING_API_BASE" if prefix == "EMBEDDING" else f"{prefix}_BASE_URL"
    try:
        url, model, key = (os.environ[name] for name in (address, f"{prefix}_MODEL", f"{prefix}_API_KEY"))
    except KeyError as missing:
        sys.exit(f'{missing.args[0]} is not set; eval "$(stoker endpoints --format sh)" sets it')
    return OpenAI(base_url=url, api_key=key, max_retries=retries), model

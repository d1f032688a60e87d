"""Which member answered a request: the gateway's own log, by the X-Request-ID of the answer. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection


def answering(log: str, request_ids: Collection[str]) -> dict[str, str]:
    """Request id -> name of the instance whose answer the client got. Lines of others are skipped."""
    found = {}
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("id") in request_ids:
            # All members that were tried; the last one gave the answer. Namesakes on two hosts are written as name@host.
            last = str(entry.get("member", "")).rpartition(",")[2].strip()
            found[str(entry["id"])] = last.partition("@")[0]
    return found

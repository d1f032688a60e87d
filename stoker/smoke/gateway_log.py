"""Which member answered a request: the gateway's own log, by the X-Request-ID of the answer. Pure but for name resolution."""

from __future__ import annotations

import json
import socket
from collections.abc import Collection, Iterable

from stoker.smoke.target import Member


def answering(log: str, request_ids: Collection[str]) -> dict[str, str]:
    """Request id -> ``address:port`` of the member whose answer the client got. Lines of others are skipped."""
    found = {}
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("id") in request_ids:
            # After a retry nginx lists all members that it tried; the last one gave the answer.
            found[str(entry["id"])] = str(entry.get("member", "")).rpartition(",")[2].strip()
    return found


def instance_names(members: Iterable[Member]) -> dict[str, str]:
    """``address:port``, as nginx writes it, -> the instance's name. nginx logs addresses where the description has host names."""
    names = {}
    for member in members:
        port = member.instance.port
        for address in _addresses(member.host.address):
            names[f"[{address}]:{port}" if ":" in address else f"{address}:{port}"] = member.instance.name
    return names


def _addresses(host: str) -> set[str]:
    try:
        return {host, *(str(entry[4][0]) for entry in socket.getaddrinfo(host, None))}
    except OSError:
        return {host}

"""HTTPS to one gateway by the name in its certificate, wherever that name leads: several gateways may share one."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

#: curl's own variable: a file with the authorities to trust instead of the system's.
CA_VARIABLE = "CURL_CA_BUNDLE"


@dataclass(frozen=True)
class Pinned:
    """What httpx needs to ask ``connect`` (``address:port``) for a URL; as curl does with --connect-to."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, str] = field(default_factory=dict)


def pinned(url: str, connect: str) -> Pinned:
    """``connect`` empty: the URL as it is."""
    if not connect:
        return Pinned(url)
    parts = urlsplit(url)
    return Pinned(
        urlunsplit(parts._replace(netloc=connect)), {"Host": parts.netloc}, {"sni_hostname": parts.hostname or ""}
    )


def trusted() -> ssl.SSLContext:
    """The authorities that curl trusts. Raises OSError when the variable's file cannot be read."""
    return ssl.create_default_context(cafile=os.environ.get(CA_VARIABLE) or None)

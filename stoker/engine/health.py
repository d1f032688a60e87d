"""How a container's health is asked in images that have python3 and perhaps no curl."""

from __future__ import annotations


def by_python(url: str) -> tuple[str, ...]:
    """As Compose takes it. An answer other than 2xx, or none within 8 s, is an exit status other than 0."""
    return ("CMD", "python3", "-c", f"import urllib.request; urllib.request.urlopen('{url}', timeout=8)")

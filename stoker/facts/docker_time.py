"""Docker's times as text and as numbers. They are RFC 3339 in UTC with up to nine digits behind the second."""

from __future__ import annotations

import re

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")


def fixed(docker_time: str) -> str:
    """The form of `docker logs --timestamps`, nine digits, in which texts compare as times. Empty when it is none.

    `docker inspect` leaves zeros at the end out.
    """
    found = _TIME.fullmatch(docker_time)
    return f"{found[1]}.{found[2] or '':0<9}Z" if found else ""

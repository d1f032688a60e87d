"""Which lines of a log tell of an error: those that say so, and the traceback that belongs to them. Pure."""

from __future__ import annotations

import json
import re

from stoker.ready.logtext import log_lines

_BEGIN = re.compile(r"^Traceback \(most recent call last\)|^panic: |^fatal error: ")
#: Python's words between two tracebacks of one failure.
_CHAIN = re.compile(r"^(During handling of the above exception|The above exception was the direct cause)")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?::|$)")
#: nginx's levels from error upwards, in its error log.
_NGINX = re.compile(
    r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(?:error|crit|alert|emerg)\]|^nginx: \[(?:error|crit|alert|emerg)\]"
)
#: An answer of 500 or more in Ollama's access log: ``[GIN] 2026/11/21 - 03:00:00 | 500 | ...``.
_GIN = re.compile(r"^\[GIN\] [^|]*\| +5\d\d \|")
_LEVELS = ("ERROR", "CRITICAL", "FATAL")


class Errors:
    """Of one container, line after line."""

    def __init__(self) -> None:
        self._inside = False  # a traceback

    def keep(self, text: str) -> bool:
        """Whether the next line tells of an error."""
        parts = log_lines(text)
        if not parts:
            return self._inside
        kept = [self._one(part.text, part.level) for part in parts]  # each has to be seen
        return True in kept

    def _one(self, text: str, level: str) -> bool:
        if level in _LEVELS:
            # vLLM's logger marks each line of a traceback by itself.
            self._inside = False
            return True
        if _BEGIN.match(text) or _CHAIN.match(text):
            self._inside = True
            return True
        if self._inside and not level:
            # Its frames are indented; the first line that is not is the exception itself.
            self._inside = text[:1].isspace()
            return True
        self._inside = False
        return bool(_EXCEPTION.match(text) or _NGINX.match(text) or _GIN.match(text) or _failed_request(text))


def _failed_request(text: str) -> bool:
    """A line of a gateway's access log with an answer of 500 or more."""
    if not text.startswith("{"):
        return False
    try:
        status = json.loads(text).get("status")
    except (ValueError, AttributeError):
        return False
    return str(status).isdigit() and int(status) >= 500

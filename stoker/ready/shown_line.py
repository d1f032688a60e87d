"""One line of a log for the screen: no secret, no control character, not longer than there is room."""

from __future__ import annotations

import re

from stoker.ready.logtext import log_lines

# What engines and their libraries print of keys: vLLM's "non-default args: {'api_key': ['...']}", headers, hub tokens, URLs.
_SECRETS = (
    (
        re.compile(
            r"""(?i)((?:api[_-]?keys?|(?<![a-z])token|(?<![a-z_])tokens|password|secret)['"]?\s*[:=]\s*)(\[[^\]]*\]|'[^']*'|"[^"]*"|[^\s,}]+)"""
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)((?:bearer|authorization:\s*[a-z]+)\s+)\S+"), r"\1***"),
    (re.compile(r"(--(?:api-key|hf-token)[ =])\S+"), r"\1***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "***"),
    (re.compile(r"(://)[^/\s:@]*:[^/\s@]*@"), r"\1***@"),
)


def without_secrets(text: str) -> str:
    """The text with everything that looks like a key replaced by asterisks."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def last_line(log: str, width: int = 160) -> str:
    """The newest line of a log, or "" when it has none."""
    lines = log_lines(log)
    if not lines:
        return ""
    text = " ".join(without_secrets(lines[-1].text).split())
    return text if len(text) <= width else text[: width - 1] + "…"

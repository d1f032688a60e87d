"""Ctrl-C, so that whatever waits can stop waiting."""

from __future__ import annotations

_pressed = False


def press() -> bool:
    """Note an interrupt; True when it is the first."""
    global _pressed
    first = not _pressed
    _pressed = True
    return first


def interrupted() -> bool:
    return _pressed

"""Ctrl-C and SIGTERM end what goes on, from the place where it waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent

INTERRUPTED = 130


def as_keyboard_interrupt() -> None:
    """From now on the main greenlet gets a KeyboardInterrupt at its next wait; a second signal ends the process at once.

    By itself the signal would hit whichever greenlet happens to run, and gevent would print it.
    """
    main = gevent.getcurrent()
    seen: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if seen:
            os._exit(INTERRUPTED)
        seen.append(number)
        gevent.get_hub().loop.run_callback_threadsafe(main.throw, KeyboardInterrupt())

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)


@contextmanager
def plain_ctrl_c() -> Iterator[None]:
    """Python's own way while a question waits for its answer: that lets no other greenlet run, so nothing could be thrown into it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

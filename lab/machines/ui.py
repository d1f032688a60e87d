"""Progress for a person: one line when a step ends, with the seconds it took."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.machines.errors import LabError

_print_lock = threading.Lock()


def say(line: str) -> None:
    """Print one whole line; lines of parallel steps do not mix. Nobody reading (`lab/up | head`) does not stop the work."""
    with _print_lock, contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a step that may take a while, and say how many seconds it took. Silent when it fails: the error is said once, at the end."""
    started = time.monotonic()
    say(f"  ...    {what}")
    yield
    say(f"{time.monotonic() - started:6.1f} s  {what}")


def main(command: Callable[[list[str]], int]) -> None:
    """Run a command's function and end the process: 0 done, 1 failed, 130 interrupted. A LabError is one message on stderr."""
    try:
        code = command(sys.argv[1:])
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on, or lab/down to remove everything", file=sys.stderr)
        code = 130
    sys.exit(code)

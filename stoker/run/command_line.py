"""The entry from plain ``pyinfra``: errors of the description end the run with a message instead of a traceback."""

from __future__ import annotations

import sys

from stoker.run.session import begin_from_command_line
from stoker.spec.problems import SpecError

COULD_NOT_START = 3


def check_description() -> None:
    """Called by config.py. Exits with status 3 and every problem when the description cannot be used."""
    try:
        begin_from_command_line()
    except SpecError as error:
        print(error, file=sys.stderr)
        sys.stderr.flush()
        raise SystemExit(COULD_NOT_START) from None

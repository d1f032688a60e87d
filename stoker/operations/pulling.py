"""An image that is being pulled, as a row of the live view."""

from __future__ import annotations

import time
from collections.abc import Callable

from stoker.ready.board import Board
from stoker.ready.diagnosis import UNKNOWN, Diagnosis, diagnose_text
from stoker.ready.outcome import Verdict
from stoker.ready.phase import Phase, Progress
from stoker.ready.target import Target
from stoker.ready.wait import View
from stoker.steps.pull import read_pulled


class Pulling:
    """Joins the board at once; ``end`` leaves it."""

    def __init__(self, board: Board, host_name: str, image: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._target = Target(host_name, image.rpartition("/")[2], "image", "", 0, "")
        self._clock = clock
        self._begun = clock()
        self._progress = Progress(Phase.PULLING)
        board.join([])
        self._show()

    def tell(self, line: str) -> None:
        """Take a line of the pull's output."""
        pulled = read_pulled(line)
        if pulled:
            self._progress = Progress(Phase.PULLING, pulled.words, pulled.percent)
        self._show()

    def end(self, error: str | None) -> None:
        """``error`` as `run_long` returns it."""
        words = "" if error is None else _cause(error)
        self._show(words, Verdict.PULLED if error is None else Verdict.FAILED)
        self._board.leave([])

    def _show(self, note: str = "", verdict: Verdict | None = None) -> None:
        self._board.show([View(self._target, self._progress, self._clock() - self._begun, note, verdict)])


def _found(error: str) -> Diagnosis | None:
    """What the catalogue says of the error. `run_long` sets a bar before each line of the output."""
    return diagnose_text("", "\n".join(line.removeprefix("    | ") for line in error.splitlines()))


def _cause(error: str) -> str:
    found = _found(error)
    return found.brief if found else error.splitlines()[0]


def explained(error: str) -> str:
    """The error with cause and remedy where they are known."""
    found = _found(error)
    if found is None or found.id == UNKNOWN:
        return error
    return f"{error}\n    cause    {found.cause}\n    remedy   {found.remedy}\n    more     {found.anchor}"

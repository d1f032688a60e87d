"""The view of a loading fleet, shared by all hosts: a live table on a terminal, else one line per change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stoker.ready.outcome import Outcome, Verdict
from stoker.ready.target import Target
from stoker.ready.wait import View

HEARTBEAT_SECONDS = 15.0
REFRESHES_PER_SECOND = 4
BAR_CELLS = 10
#: Columns of a terminal from which a row has everything, and from which it also has the expected time and the log's last line.
WIDE, MEDIUM = 110, 72

_GOOD = (Verdict.READY, Verdict.PULLED)


class Board:
    """Shows the views that waits hand in; any number of hosts may wait at once (threads or greenlets)."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._lock = threading.RLock()
        self._rows: dict[tuple[str, str], _Row] = {}
        self._outcomes: list[Outcome] = []
        self._open = 0  # hosts that wait, and downloads
        self._live: Live | None = None
        self._told: dict[tuple[str, str], str] = {}  # what the last line about an instance said
        self._heard = 0.0

    # --- called by the waits ----------------------------------------------------------------------------------

    def join(self, targets: Sequence[Target]) -> None:
        """A host begins to wait for these."""
        with self._lock:
            self._open += 1
            if self._open > 1:
                return
            self._heard = self._clock()
            if self._console.is_terminal and not self._console.is_dumb_terminal:
                self._live = Live(
                    console=self._console,
                    refresh_per_second=REFRESHES_PER_SECOND,
                    transient=True,
                    get_renderable=self.table,
                )
                self._live.start()

    def show(self, views: Sequence[View]) -> None:
        """Take the newest views of some instances."""
        with self._lock:
            for view in views:
                self._rows[view.target.host, view.target.name] = _Row(view, self._clock())
            if self._live is None:
                self._tell_lines(views)

    def leave(self, outcomes: Sequence[Outcome]) -> None:
        """A host has finished; the last one to leave closes the view and prints the summary."""
        with self._lock:
            self._outcomes += outcomes
            self._open -= 1
            if self._open > 0:
                return
            self.close()
            for line in summary(self._outcomes):
                self._line(line)
            self._rows, self._outcomes, self._told = {}, [], {}

    def close(self) -> None:
        """End the live view and leave its last picture; also when the waits do not come to an end."""
        with self._lock:
            if self._live is None:
                return
            live, self._live = self._live, None
            live.stop()
            if self._rows:
                self._console.print(self.table())

    # --- drawing ----------------------------------------------------------------------------------------------

    def table(self) -> Table:
        """All instances known so far, by host and in the order in which they came."""
        rows = list(self._rows.values())  # without the lock: the live view's own thread, which has its own, comes here
        width = self._console.width
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=False)
        if width >= WIDE:
            table.add_column("host", no_wrap=True)
        table.add_column("instance", overflow="fold", max_width=max(18, width // 4))
        table.add_column("phase", ratio=1)
        if width >= WIDE:
            table.add_column("", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        if width >= MEDIUM:
            table.add_column("left", justify="right", no_wrap=True)
        if width >= WIDE:
            table.add_column("GPU memory", justify="right", no_wrap=True)
        with_lines = width >= MEDIUM and 2 * len(rows) + 2 <= self._console.height
        host = ""
        for row in rows:
            if width < WIDE and row.view.target.host != host:
                host = row.view.target.host
                table.add_row(Text(host, style="bold"))
            table.add_row(*self._cells(row, width, with_lines))
        return table

    def _cells(self, row: _Row, width: int, with_line: bool) -> list[RenderableType]:
        view = row.view
        going = view.verdict is None
        passed = self._clock() - row.at if going else 0.0
        phase: RenderableType = Text(
            phase_text(view), style="" if going else "green" if view.verdict in _GOOD else "red"
        )
        if going and with_line and view.line:
            phase = Group(phase, Text(view.line, style="dim", no_wrap=True, overflow="ellipsis"))
        cells: list[RenderableType] = [Text(view.target.host)] if width >= WIDE else []
        cells += [Text(view.target.name), phase]
        if width >= WIDE:
            cells.append(bar(view.progress.percent if going else None))
        cells.append(clock_text(view.seconds + passed))
        if width >= MEDIUM:
            cells.append(left_text(view.remaining, passed) if going else "")
        if width >= WIDE:
            cells.append(memory_text(view) if going else "")
        return cells

    # --- lines ------------------------------------------------------------------------------------------------

    def _tell_lines(self, views: Sequence[View]) -> None:
        now = self._clock()
        for view in views:
            key = (view.target.host, view.target.name)
            said = f"{view.progress.phase.words}|{view.note}|{view.verdict}"
            if self._told.get(key) != said:
                self._told[key] = said
                for phase in view.passed:
                    self._line(f"{view.target.host} {view.target.name}: {phase.words}, passed")
                self._heard = now
                left = "" if view.remaining is None or view.verdict else f", {left_text(view.remaining)} left"
                self._line(
                    f"{view.target.host} {view.target.name}: {phase_text(view)}, {clock_text(view.seconds)}{left}"
                )
        if now - self._heard < HEARTBEAT_SECONDS:
            return
        self._heard = now
        open_ones = [row.view for row in self._rows.values() if row.view.verdict is None]
        if open_ones:
            parts = "; ".join(f"{view.target.name} {phase_text(view)}" for view in open_ones)
            self._line(f"still waiting for {len(open_ones)} of {len(self._rows)}: {parts}")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Row:
    """A view, and when it came: between two views the times go on."""

    view: View
    at: float


def phase_text(view: View) -> str:
    """What is said of an instance: its phase, or its verdict and why."""
    if view.verdict:
        return f"{view.verdict.value}: {view.note}" if view.note else view.verdict.value
    progress = view.progress
    percent = f" ({progress.percent:.0f} %)" if progress.percent is not None else ""
    return f"{progress.text}{percent}" + (f" [{view.note}]" if view.note else "")


def bar(percent: float | None) -> str:
    """A bar of fixed width, empty space where no share is known."""
    if percent is None:
        return " " * BAR_CELLS
    full = round(BAR_CELLS * min(100.0, max(0.0, percent)) / 100.0)
    return "█" * full + "░" * (BAR_CELLS - full)


def memory_text(view: View) -> str:
    """ "5.3 of 32 GiB" of the instance's cards together, neighbours included; "" where it is not known."""
    if view.memory is None:
        return ""
    used, total = view.memory
    return f"{used / 1024:.1f} of {total / 1024:.0f} GiB"


def left_text(remaining: float | None, passed: float = 0.0) -> str:
    """ "~40 s", "~3:10": an expectation from the last load, so not to the tenth. "" without one."""
    if remaining is None:
        return ""
    seconds = max(0.0, remaining - passed)
    return f"~{seconds:.0f} s" if seconds < 59.5 else f"~{clock_text(seconds)}"


def clock_text(seconds: float) -> str:
    """ "8.4 s" below a minute, else "3:07"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """The last lines: how many answer and how long each took, then the names of those that do not."""
    if not outcomes:
        return []
    good = [one for one in outcomes if one.ok]
    lines = [f"{len(good)} of {len(outcomes)} instances answer"]
    if good:
        lines[0] += ": " + ", ".join(f"{one.target.name} {clock_text(one.seconds)}" for one in good)
    bad = [f"{one.target.name} on {one.target.host} ({one.verdict.value})" for one in outcomes if not one.ok]
    if bad:
        lines.append(f"not ready: {', '.join(bad)}")
    return lines

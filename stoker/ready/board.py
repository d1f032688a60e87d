"""The view of a loading fleet, shared by all hosts: a live table on a terminal, else one line per change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stoker.ready.outcome import Outcome, Verdict
from stoker.ready.target import Target
from stoker.ready.wait import View

HEARTBEAT_SECONDS = 15.0
REFRESH_SECONDS = 0.2
BAR_CELLS = 20

_STYLES = {Verdict.READY: "green", Verdict.FAILED: "red", Verdict.TIMED_OUT: "red", Verdict.BLOCKED: "red"}


class Board:
    """Shows the views that waits hand in; any number of hosts may wait at once (threads or greenlets).

    It needs no thread of its own: the waits look several times a second and every look refreshes the times.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._lock = threading.RLock()
        self._views: dict[tuple[str, str], View] = {}
        self._outcomes: list[Outcome] = []
        self._waiting = 0  # hosts
        self._live: Live | None = None
        self._drawn = 0.0
        self._told: dict[tuple[str, str], str] = {}  # what the last line about an instance said
        self._heard = 0.0

    # --- called by the waits ----------------------------------------------------------------------------------

    def join(self, targets: Sequence[Target]) -> None:
        """A host begins to wait for these."""
        with self._lock:
            self._waiting += 1
            if self._waiting > 1:
                return
            self._heard = self._clock()
            if self._console.is_terminal:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()

    def show(self, views: Sequence[View]) -> None:
        """Take the newest views of some instances."""
        with self._lock:
            for view in views:
                self._views[(view.target.host, view.target.name)] = view
            if self._live is None:
                self._tell_lines(views)
            elif self._clock() - self._drawn >= REFRESH_SECONDS:
                self._drawn = self._clock()
                self._live.update(self.table(), refresh=True)

    def leave(self, outcomes: Sequence[Outcome]) -> None:
        """A host has finished; the last one to leave closes the view and prints the summary."""
        with self._lock:
            self._outcomes += outcomes
            self._waiting -= 1
            if self._waiting > 0:
                return
            if self._live:
                self._live.stop()
                self._live = None
                if self._views:
                    self._console.print(self.table())
            for line in summary(self._outcomes):
                self._console.print(Text(line), soft_wrap=True)
            self._views, self._outcomes, self._told = {}, [], {}

    # --- drawing ----------------------------------------------------------------------------------------------

    def table(self) -> Table:
        """All instances known so far, by host and in the order in which they came."""
        narrow = self._console.width < 90
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("host", "instance", "gpu"):
            table.add_column(heading, no_wrap=True)
        table.add_column("phase", overflow="fold", ratio=1)
        if not narrow:
            table.add_column("", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        for view in self._views.values():
            style = _STYLES.get(view.verdict, "") if view.verdict else ""
            cells: list[RenderableType] = [
                view.target.host,
                view.target.name,
                gpu_label(view.target),
                Text(phase_text(view), style=style),
            ]
            if not narrow:
                cells.append(bar(view.progress.percent) if not view.verdict else "")
            table.add_row(*cells, clock_text(view.seconds))
        return table

    def _tell_lines(self, views: Sequence[View]) -> None:
        now = self._clock()
        for view in views:
            key = (view.target.host, view.target.name)
            said = f"{view.progress.phase.words}|{view.note}|{view.verdict}"
            if self._told.get(key) != said:
                self._told[key] = said
                self._heard = now
                self._line(f"{view.target.host} {view.target.name}: {phase_text(view)}, {clock_text(view.seconds)}")
        if now - self._heard < HEARTBEAT_SECONDS:
            return
        self._heard = now
        open_ones = [view for view in self._views.values() if view.verdict is None]
        if open_ones:
            parts = "; ".join(f"{view.target.name} {phase_text(view)}" for view in open_ones)
            self._line(f"still waiting for {len(open_ones)} of {len(self._views)}: {parts}")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


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


def gpu_label(target: Target) -> str:
    """GPU names short enough for a column: an index stays, a UUID loses its tail."""
    return ",".join(name[:12] if name.startswith("GPU-") else name for name in target.gpus)


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

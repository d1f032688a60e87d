"""Command lines of an engine that end by themselves: each is run once, and those of a slow engine ahead of the clauses that ask for them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from subjects import Subject

END_SECONDS = 240.0


class CommandLines:
    """The command lines of one engine. Close it: what has not begun then does not begin."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._pool = ThreadPoolExecutor(subject.command_lines_at_once)
        self._begun: dict[tuple[str, ...], Future[tuple[int, str]]] = {}

    def end(self, words: Iterable[str], others: Iterable[Iterable[str]] = ()) -> tuple[int, str]:
        """Exit code and output of one; `others` are those that will be asked for as well."""
        lines = [words, *(others if self._subject.command_lines_at_once > 1 else ())]
        for line in map(tuple, lines):
            if line not in self._begun:
                self._begun[line] = self._pool.submit(self._run, line)
        return self._begun[tuple(words)].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _run(self, words: tuple[str, ...]) -> tuple[int, str]:
        running = self._subject.command(*words)
        try:
            return running.wait_exit(END_SECONDS), running.text()
        finally:
            running.stop()

"""The servers that the clauses of one engine share: started when their turn is near, a few at a time, each at most once."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import wire
from running import Running, wait_for
from subjects import Subject, Wanted

# In the order in which the clauses use them: those that end their server come last of it.
WANTED = {
    "generating": Wanted(key=True),
    "stopping": Wanted(key=True),  # the server "generating", when nobody needs it any more
    "pooling": Wanted(model="bge-m3", key=True),
    "aborting": Wanted(),
    "draining": Wanted(shutdown_timeout=60),
    "dying": Wanted(),
    "interrupted": Wanted(slow_load=True),
}
ORDER = list(WANTED)
SAME = {"stopping": "generating"}
T = TypeVar("T")


class Servers:
    """Starts, hands out and ends the servers of one engine."""

    def __init__(self, subject: Subject, needed: list[str]) -> None:
        self.subject = subject
        self.ahead = list(dict.fromkeys(SAME.get(name, name) for name in needed))  # not started yet
        self.running: dict[str, Running] = {}
        self.results: dict[str, Any] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self.running.values():
            running.stop()

    def starting(self, name: str) -> Running:
        """The server, started and not waited for."""
        name = SAME.get(name, name)
        for other, running in self.running.items():
            if ORDER.index(other) < ORDER.index(name) and not running.retired:
                self._retire(running)  # the clauses come in order: nobody asks it again
        if name not in self.running:
            self._start(name)
        self._fill()
        return self.running[name]

    def ready(self, name: str) -> Running:
        """The server, listening. What its port did until then is in `outcomes` and `port_held`."""
        running = self.starting(name)
        if WANTED[name].slow_load or running.outcomes[-1:] == [200] or running.retired:
            return running

        def answers() -> bool:
            assert not running.ended(), f"the engine ended while it started:\n{running.text()[-4000:]}"
            if "Resolved architecture" in running.text() and running.outcomes[-1:] != [200]:
                running.port_held.add(running.holds_port())
            outcome = wire.outcome(running, "/health")
            if running.outcomes[-1:] != [outcome]:
                running.outcomes.append(outcome)
            return bool(outcome == 200)

        wait_for(answers, f"{name} is ready", self.subject.start_seconds)
        return running

    def once(self, name: str, story: Callable[[Running, Subject], T]) -> T:
        """What a story with this server gave, played at its first use: it ends the server, so it cannot be played twice."""
        if name not in self.results:
            running = self.ready(name)
            try:
                self.results[name] = story(running, self.subject)
            except BaseException as error:
                self.results[name] = error
            self._retire(running)
            self._fill()
        result = self.results[name]
        if isinstance(result, BaseException):
            raise result
        return result  # type: ignore[no-any-return]

    def _retire(self, running: Running) -> None:
        running.retired = True
        running.stop()

    def _start(self, name: str) -> None:
        if name in self.ahead:
            self.ahead.remove(name)
        self.running[name] = self.subject.start(WANTED[name])

    def _fill(self) -> None:
        """Start what comes next, as many as the engine bears at once."""
        while self.ahead and sum(not running.retired for running in self.running.values()) < self.subject.at_once:
            if WANTED[self.ahead[0]].slow_load:
                return  # is of use only while it loads
            self._start(self.ahead[0])

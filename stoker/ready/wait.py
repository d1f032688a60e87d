"""Waiting until every instance of a host has given a real answer, or it is known why it will not."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stoker.ready.diagnosis import Diagnosis
from stoker.ready.outcome import Outcome, Verdict
from stoker.ready.phase import Phase, Progress
from stoker.ready.probe import HostSeen, build_script, parse_output
from stoker.ready.stamp import write_stamps_fragment
from stoker.ready.target import Target
from stoker.ready.watch import Watch

AGAIN_SECONDS = 2.0  # between two tries to reach a host whose connection is lost
# An engine that its first request killed is seen dead within half a second (vLLM 0.19.1's watchdog).
SETTLE_SECONDS = 1.0
TROUBLE_SECONDS = 20.0  # after which a host that is reached but cannot be looked at is given up


class ConnectionLost(Exception):
    """What `run` raises when the host cannot be reached now. OSError and EOFError are taken for the same."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a command on a host."""

    exit_code: int
    stdout: str
    stderr: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What the board shows of one instance; times in seconds."""

    target: Target
    progress: Progress
    seconds: float
    note: str = ""
    verdict: Verdict | None = None


class Showing(Protocol):
    """Where progress is shown; stoker.ready.board.Board is one. Called by several hosts at once."""

    def join(self, targets: Sequence[Target]) -> None: ...
    def show(self, views: Sequence[View]) -> None: ...
    def leave(self, outcomes: Sequence[Outcome]) -> None: ...


def wait_ready(
    run: Callable[[str], RunResult],
    targets: Sequence[Target],
    board: Showing,
    *,
    timeout_seconds: float = 1800.0,
    poll_seconds: float = 0.3,
    interrupted: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Outcome]:
    """Wait for the instances of one host; returns one outcome for each, in their order.

    `run` executes a POSIX sh script as root on the host. It may raise ConnectionLost, OSError or EOFError: the wait
    goes on, and ends at the time limit. `timeout_seconds` is for one start, from its turn on the GPU on; an instance
    whose neighbours load first gets their time on top. An instance that fails is decided at once, the others go on.
    """
    begun = clock()
    watches = [
        Watch(target, begun, timeout_seconds, 1 + sum(_share_gpu(target, other) for other in targets))
        for target in targets
    ]
    host = _Host(run, watches, clock)
    board.join(targets)
    outcomes: list[Outcome] = []
    try:
        while not all(watch.settled(clock(), SETTLE_SECONDS) for watch in watches):
            if interrupted():
                _stop_all(watches, Verdict.INTERRUPTED, clock())
                break
            host.look()
            _consider_neighbours(watches, clock())
            board.show([_view(watch, clock(), host.note) for watch in watches])
            if not any(watch.hurry for watch in watches):
                sleep(host.pause(poll_seconds))
        else:
            host.write_stamps()
        outcomes = [watch.outcome() for watch in watches]
    finally:
        board.leave(outcomes)
    return outcomes


class _Host:
    """The looks at one host, with their troubles."""

    def __init__(self, run: Callable[[str], RunResult], watches: Sequence[Watch], clock: Callable[[], float]) -> None:
        self._run = run
        self._watches = watches
        self._clock = clock
        self._trouble_since: float | None = None
        self._lost = False
        self.note = ""

    def pause(self, poll_seconds: float) -> float:
        """Seconds until the next look."""
        return AGAIN_SECONDS if self._lost else poll_seconds

    def look(self) -> None:
        """Look once, and let every watch take in what was seen."""
        boundary = f"stoker-{secrets.token_hex(8)}"
        looks = [watch.look(self._clock()) for watch in self._watches]
        stamped = [watch for watch in self._watches if watch.stamp]
        script = build_script(looks, boundary, stamps={watch.target.container: watch.stamp for watch in stamped})
        try:
            result = self._run(script)
        except (ConnectionLost, OSError, EOFError) as error:
            self._connection_lost(error)
            return
        self._lost = False
        seen = parse_output(result.stdout, looks, boundary)
        if seen.trouble:
            self._in_trouble(seen, result, boundary)
            return
        self._trouble_since, self.note = None, ""
        for watch in stamped:
            watch.stamp = ""
        now = self._clock()
        for watch, one in zip(self._watches, seen.instances, strict=True):
            watch.observe(one, now)

    def _connection_lost(self, error: BaseException) -> None:
        self._lost = True
        self.note = "connection lost, trying again"
        now = self._clock()
        for watch in self._watches:
            if watch.out_of_time(now):
                watch.stop(
                    Verdict.UNREACHABLE,
                    now,
                    Diagnosis(
                        "connection-lost",
                        f"the host could not be reached any more ({error})",
                        "check the network and the host; what runs there goes on, deploy again to see it",
                    ),
                )

    def _in_trouble(self, seen: HostSeen, result: RunResult, boundary: str) -> None:
        now = self._clock()
        if self._trouble_since is None:
            self._trouble_since = now
        self.note = seen.trouble
        if now - self._trouble_since < TROUBLE_SECONDS:
            return
        # A look that was cut short holds what Docker tells of the containers, their environment included: not for show.
        said = result.stderr.strip() or ("" if boundary in result.stdout else result.stdout.strip())
        if seen.docker_down:
            found = Diagnosis(
                "docker-down",
                "Docker does not answer on the host",
                "on the host: systemctl status docker, journalctl -u docker -n 50",
            )
        else:
            found = Diagnosis(
                "host-not-readable",
                f"the state of the host could not be read: {seen.trouble}",
                "check that the SSH user is root or may use sudo without a password, and that curl is installed",
                " ".join(said.split())[:300],
            )
        _stop_all(self._watches, Verdict.FAILED, now, found)

    def write_stamps(self) -> None:
        """Write what the last look proved. A host that is gone by now only loses the note: it is proven again."""
        stamps = {watch.target.container: watch.stamp for watch in self._watches if watch.stamp}
        if not stamps:
            return
        try:
            self._run(write_stamps_fragment(stamps) + "\n")
        except (ConnectionLost, OSError, EOFError):
            return
        for watch in self._watches:
            watch.stamp = ""


def _stop_all(watches: Sequence[Watch], verdict: Verdict, now: float, found: Diagnosis | None = None) -> None:
    for watch in watches:
        watch.stop(verdict, now, found)


def _share_gpu(one: Target, other: Target) -> bool:
    return one is not other and bool(set(one.gpus) & set(other.gpus))


def _consider_neighbours(watches: Sequence[Watch], now: float) -> None:
    """Tell each waiting instance for whom it waits, and end the wait of one whose turn cannot come."""
    for watch in watches:
        if watch.done or watch.progress.phase is not Phase.WAITING_FOR_GPU:
            continue
        others = [other for other in watches if _share_gpu(watch.target, other.target)]
        holder = next((other for other in others if other.holds_gpu_in_vain()), None)
        if holder:
            watch.stop(
                Verdict.BLOCKED,
                now,
                Diagnosis(
                    "gpu-held-by-neighbour",
                    f"its turn did not come: {holder.target.name} took the GPU and does not become ready",
                    f"see {holder.target.name}; after docker stop {holder.target.container} on the host it starts by itself",
                ),
            )
            continue
        loading = [
            other.target.name for other in others if not other.done and other.progress.phase > Phase.WAITING_FOR_GPU
        ]
        failed = [other.target.name for other in others if other.verdict is Verdict.FAILED]
        if loading:
            watch.told_to_wait_for(f"{', '.join(loading)} loads first")
        elif failed:
            watch.told_to_wait_for(f"{', '.join(failed)} failed before it; its turn comes when that one lets go")


def _view(watch: Watch, now: float, note: str) -> View:
    if watch.done:
        outcome = watch.outcome()
        text = outcome.note if outcome.ok else (outcome.diagnosis.brief if outcome.diagnosis else "")
        return View(watch.target, watch.progress, outcome.seconds, text, watch.verdict)
    return View(watch.target, watch.progress, now - watch.begun, note)

"""Waiting until every instance of a host has given a real answer, or it is known why it will not."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stoker.ready.cards import CardsSeen
from stoker.ready.diagnosis import Diagnosis
from stoker.ready.limits import DEFAULT, Limits
from stoker.ready.load_record import LOADS
from stoker.ready.outcome import Outcome, Verdict
from stoker.ready.phase import Phase, Progress
from stoker.ready.probe import HostSeen, build_script, parse_output
from stoker.ready.stamp import write_stamps_fragment
from stoker.ready.target import Target
from stoker.ready.watch import QUIET_SECONDS, Watch

AGAIN_SECONDS = 2.0  # between two looks at a host whose connection is lost, or that cannot be looked at
#: In which a look has ended: it holds on the host, and then asks Docker, engines and cards, each with a limit of its own.
LOOK_SECONDS = QUIET_SECONDS + 60
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
    """What the board shows of one instance: times in seconds, memory used and in all in MiB, the newest line of its log.

    `passed`: the phases that began and ended since the view before, in order.
    """

    target: Target
    progress: Progress
    seconds: float
    note: str = ""
    verdict: Verdict | None = None
    remaining: float | None = None
    memory: tuple[int, int] | None = None
    line: str = ""
    passed: tuple[Phase, ...] = ()


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
    limits: Limits = DEFAULT,
    interrupted: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Outcome]:
    """Wait for the instances of one host; returns one outcome for each, in their order.

    `run` executes a POSIX sh script as root on the host. It may raise ConnectionLost, OSError or EOFError: the wait
    goes on, and ends at the time limit. The limits are for one start; an instance whose neighbours load first gets their
    time on top. An instance that fails is decided at once, the others go on.
    """
    begun = clock()
    watches = [
        Watch(target, begun, limits, 1 + sum(_share_gpu(target, other) for other in targets)) for target in targets
    ]
    host = _Host(run, watches, clock)
    board.join(targets)
    outcomes: list[Outcome] = []
    try:
        while not all(watch.settled(clock()) for watch in watches):
            if interrupted():
                _stop_all(watches, Verdict.INTERRUPTED, clock())
                break
            host.look()
            _consider_neighbours(watches, clock())
            board.show([_view(watch, watches, clock(), host.note) for watch in watches])
            if host.note:
                sleep(AGAIN_SECONDS)
        else:
            host.write_notes()
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
        self._cards_gone = False
        self._examined = False  # the cards of each instance, since nvidia-smi complained
        self.note = ""

    def look(self) -> None:
        """Let the host wait until there is something to see, look, and let every watch take in what was seen."""
        boundary = f"stoker-{secrets.token_hex(8)}"
        now = self._clock()
        hold_seconds = self._hold_seconds(now)
        looks = [watch.look(examine=self._cards_gone) for watch in self._watches]
        stamped = [watch for watch in self._watches if watch.stamp]
        loading = any(not watch.done and watch.target.uuids for watch in self._watches)
        script = build_script(
            looks,
            boundary,
            hold_seconds=hold_seconds,
            cards=loading,
            heed_cards=loading and not self._cards_gone,
            stamps={watch.target.container: watch.stamp for watch in stamped},
            loads={watch.target.container: watch.load for watch in stamped if watch.load},
        )
        try:
            result = self._run(script)
        except (ConnectionLost, OSError, EOFError) as error:
            self._connection_lost(error)
            return
        seen = parse_output(result.stdout, looks, boundary)
        if seen.trouble:
            self._in_trouble(seen, result, boundary)
            return
        self._trouble_since, self.note = None, ""
        self._examined = self._cards_gone
        self._cards_gone = bool(seen.cards.trouble)
        for watch in stamped:
            watch.stamp = watch.load = ""
        now = self._clock()
        for watch, one in zip(self._watches, seen.instances, strict=True):
            watch.observe(one, now)
            if not watch.done:
                watch.take_memory(_memory(watch.target, seen.cards), now)

    def _hold_seconds(self, now: float) -> float:
        if self.note or (self._cards_gone and not self._examined):
            return 0.0
        return min(watch.quiet_seconds(now) for watch in self._watches)

    def _connection_lost(self, error: BaseException) -> None:
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
                "check that the user there is root or may use sudo without a password, and that curl is installed",
                " ".join(said.split())[:300],
            )
        _stop_all(self._watches, Verdict.FAILED, now, found)

    def write_notes(self) -> None:
        """Write what the last look proved. A host that is gone by now only loses the notes: it is proven again."""
        stamps = {watch.target.container: watch.stamp for watch in self._watches if watch.stamp}
        loads = {watch.target.container: watch.load for watch in self._watches if watch.stamp and watch.load}
        if not stamps:
            return
        try:
            self._run("\n".join(filter(None, [write_stamps_fragment(stamps), write_stamps_fragment(loads, LOADS), ""])))
        except (ConnectionLost, OSError, EOFError):
            return
        for watch in self._watches:
            watch.stamp = watch.load = ""


def _memory(target: Target, cards: CardsSeen) -> tuple[int, int] | None:
    """Used and total MiB of the instance's cards together."""
    found = [cards.memory[uuid] for uuid in target.uuids if uuid in cards.memory]
    return (sum(used for used, _ in found), sum(total for _, total in found)) if found else None


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
        holder = next((other for other in others if other.holds_gpu_in_vain(now)), None)
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


def _view(watch: Watch, watches: Sequence[Watch], now: float, note: str) -> View:
    if watch.done:
        outcome = watch.outcome()
        text = outcome.note if outcome.ok else (outcome.diagnosis.brief if outcome.diagnosis else "")
        return View(watch.target, watch.progress, outcome.seconds, text, watch.verdict, passed=watch.passed)
    remaining = _remaining(watch, watches, now)
    return View(
        watch.target, watch.progress, now - watch.begun, note, None, remaining, watch.memory, watch.line, watch.passed
    )


def _remaining(watch: Watch, watches: Sequence[Watch], now: float) -> float | None:
    """As the watch expects; an instance whose turn has not come also waits for the neighbour that loads."""
    own = watch.remaining(now)
    if own is None or watch.progress.phase is not Phase.WAITING_FOR_GPU:
        return own
    others = [
        other.remaining(now)
        for other in watches
        if _share_gpu(watch.target, other.target)
        and not other.done
        and other.progress.phase is not Phase.WAITING_FOR_GPU
    ]
    known = [seconds for seconds in others if seconds is not None]
    return own + max(known) if known else own

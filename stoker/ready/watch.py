"""One instance under watch: takes what each look found and comes to a verdict. No contact with any host."""

from __future__ import annotations

from dataclasses import replace

from stoker.ready.death import death_diagnosis
from stoker.ready.diagnosis import UNKNOWN, Diagnosis
from stoker.ready.engines import engine_diagnosis, engine_is_doomed, engine_phases, engine_progress
from stoker.ready.hold import GROWN_SECONDS, Heed
from stoker.ready.limits import Limits
from stoker.ready.load_record import LoadRecord, read_record
from stoker.ready.logtext import last_lines
from stoker.ready.outcome import Outcome, Verdict
from stoker.ready.phase import Phase, Progress
from stoker.ready.probe import Container, LogWish, Look, Seen, start_key
from stoker.ready.question import judge, questions
from stoker.ready.shown_line import last_line, without_secrets
from stoker.ready.stamp import stamp_text
from stoker.ready.target import Target
from stoker.ready.timeline import Timeline

QUIET_SECONDS = 10.0  # between two looks when the host is to tell what happens before
SOON_SECONDS = 1.0  # the same when it cannot tell, because there is no process yet
# An engine that its first request killed is seen dead within half a second (vLLM 0.19.1's watchdog).
SETTLE_SECONDS = 1.0
FRESH_SECONDS = 10.0  # a start of this age is in its first phase still
DOOMED_SECONDS = 1.0  # that an engine is given to end by itself after a fatal error
STUCK_SECONDS = 30.0  # after which one that did not end is said to keep its GPU from the next
MOVED_MIB = 64  # a change of the card's memory that counts as progress
ABSENT_SECONDS = 10.0  # a container that is being recreated is away for a moment
TRIES = 3  # wrong answers that asking again might change
RESTARTS = 2  # restarts after which an instance counts as failed whatever the reason

# Failed requests whose reason is in the log, not in the answer.
_LOG_KNOWS_BETTER = frozenset(
    {
        "ollama-on-cpu",
        "ollama-runner-died",
        "ollama-not-resident",
        "no-answer",
        "request-refused",
        "time-limit",
        "no-progress",
    }
)


_IDLE = (Phase.WAITING_FOR_GPU, Phase.NO_CONTAINER)  # the time of a start has not begun


def _card_gone(said: str) -> Diagnosis:
    return Diagnosis(
        "gpu-fault",
        "its card does not answer on the host any more",
        "see dmesg | grep -i xid on the host; a card that has fallen off the bus needs a reboot, or to be seated and powered anew",
        said,
    )


def _whole(since: str, until: str = "") -> LogWish:
    """A verdict wants the whole story: the root cause of a vLLM failure stands two tracebacks above the end."""
    return LogWish(since, until, lines=1500, size=128 * 1024)


class Watch:
    """The state of one instance between looks. Times are seconds of one monotonic clock."""

    def __init__(self, target: Target, begun: float, limits: Limits, chain: int = 1) -> None:
        self.target = target
        self.begun = begun
        self.progress = Progress(Phase.NO_CONTAINER)
        self.passed: tuple[Phase, ...] = ()  # phases that began and ended between the last two looks
        self.verdict: Verdict | None = None
        self.ended = begun
        self.diagnosis: Diagnosis | None = None
        self.stamp = ""  # to be written on the host, once
        self.load = ""  # the record of this load, to be written on the host, once
        self.line = ""  # the newest of the log
        self.memory: tuple[int, int] | None = None  # used and total MiB of its cards
        self._limits = limits
        self._ceiling = limits.ceiling_seconds * max(1, chain)
        self._load_begun = begun
        self._moved = begun  # last progress
        self._moved_mib = 0
        self._timeline = Timeline(begun, whole=False)
        self._last: LoadRecord | None = None
        self._history_due = True
        self._inside = False  # the log of this start was looked at, and its engine asked if it was up
        self._code: int | None = None  # of the health
        self._doomed_since: float | None = None
        self._stuck = False  # failed, and its process did not end
        self._container: Container | None = None
        self._baseline = 0  # restarts before this wait
        self._judged = 0  # restarts whose reason has been looked at
        self._wish: LogWish | None = None  # the log that the next verdict needs
        self._failure: Diagnosis | None = None  # a failure that is not a death, waiting for that log
        self._failure_verdict = Verdict.FAILED
        self._exit_code: int | None = None
        self._absent_since: float | None = None
        self._questions = questions(target)
        self._step = 0  # of them
        self._step_due = False
        self._wrong_answers = 0
        self._lines: tuple[str, ...] = ()
        self._note = ""
        self._history: list[str] = []  # of earlier deaths in this wait

    # --- what to look at --------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.verdict is not None

    def settled(self, now: float) -> bool:
        """Done, and what answered still ran a moment after its answer: the first request may have killed it."""
        return self.done and (self.verdict is not Verdict.READY or now - self.ended >= SETTLE_SECONDS)

    @property
    def hurry(self) -> bool:
        """Something was found whose reason the next look tells, or the next request is due: do not pause before it."""
        return (self._wish is not None or self._step_due) and not self.done

    def look(self, examine: bool = False) -> Look:
        """What the next look should find out; with ``examine`` also whether its cards are there."""
        container = self._container
        if self.done:
            return Look(
                self.target,
                health=False,
                heed=Heed(pid=container.pid if container and self.verdict is Verdict.READY else 0),
            )
        if self._wish:
            return Look(self.target, health=False, log=self._wish)
        if container is None or container.status != "running":
            return Look(self.target, history=self._history_due)
        self._inside, self._step_due = True, False
        return Look(
            self.target,
            log=LogWish(container.started_at),
            start=self._step_key(container),
            question=self._questions[self._step],
            heed=self._heed(container),
            history=self._history_due,
            examine=examine,
        )

    def _step_key(self, container: Container) -> str:
        """Each request of a start has files of its own on the host."""
        return start_key(container.id, f"{container.started_at} {self._step}")

    def _heed(self, container: Container) -> Heed:
        target = self.target
        return Heed(container.pid, container.log_path, target.address, target.port, target.health_path, self._code)

    def quiet_seconds(self, now: float) -> float:
        """How long the host may wait for something to happen to this instance before the next look; 0: not at all."""
        if self.done:
            return max(SETTLE_SECONDS - (now - self.ended), 0.5) if not self.settled(now) else QUIET_SECONDS
        container = self._container
        if self.hurry:
            return 0.0
        if self._history_due or (container and container.status == "running" and not self._inside):
            return 0.0
        if container is None or container.status != "running" or self._doomed_since is not None or self._wrong_answers:
            return SOON_SECONDS
        left = min(
            self._load_begun + self._limits.ceiling_seconds,
            self._moved + self._limits.stall_seconds,
            self.begun + self._ceiling,
        )
        return max(0.5, min(QUIET_SECONDS if container.log_path else GROWN_SECONDS, left - now))

    # --- what was seen ----------------------------------------------------------------------------------------

    def observe(self, seen: Seen, now: float) -> None:
        """Take in one look. A verdict other than ready is final; a ready instance may still be seen to die."""
        if self.verdict not in (None, Verdict.READY):
            self._container = seen.container
            return
        if self._history_due:
            self._history_due = False
            self._last = read_record(seen.history)
            self._timeline = Timeline(now - (seen.age or 0.0), whole=seen.age is None or seen.age <= FRESH_SECONDS)
        if self._wish and seen.log is not None:
            self._explained(seen.log, now)
            return
        if seen.container is None:
            self._absent(now)
            return
        self._absent_since = None
        died = self._died(seen.container)
        before, self._container = self._container, seen.container
        if died:
            self._fallen(died)
            return
        if before and before.started_at != seen.container.started_at:
            self._started_anew(now)
        if self.verdict is None:
            self._advance(seen.container, seen, now)

    def take_memory(self, memory: tuple[int, int] | None, now: float) -> None:
        """The cards' memory as nvidia-smi says it. A card that fills is progress, also when the log is silent."""
        self.memory = memory
        if memory and abs(memory[0] - self._moved_mib) >= MOVED_MIB:
            self._moved_mib = memory[0]
            self._moved = now

    def _absent(self, now: float) -> None:
        if self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since >= ABSENT_SECONDS:
            self.verdict = None
            self._end(
                Verdict.FAILED,
                now,
                Diagnosis(
                    "no-container",
                    f"there is no container named {self.target.container} on the host",
                    "deploy again; if somebody removes it, docker events on the host shows who",
                ),
            )

    def _died(self, container: Container) -> LogWish | None:
        """The part of the log that tells of a death not looked at yet."""
        before = self._container
        if before is None or before.id != container.id or container.restarts < before.restarts:
            # New to this watch, or started anew by somebody. One that is found between two tries has died at least
            # once, and that death is still to be judged.
            self._baseline = container.restarts - (1 if container.status == "restarting" else 0)
            self._judged = self._baseline
            before = None
        if container.status in ("restarting", "exited", "dead"):
            self._exit_code = container.exit_code
        if container.status in ("exited", "dead") or (container.status == "created" and container.error):
            return _whole(container.started_at)
        if container.restarts <= self._judged:
            return None
        if container.status == "restarting" or before is None:
            return _whole(container.started_at)
        return _whole(before.started_at, container.started_at)

    def _fallen(self, wish: LogWish) -> None:
        if self.verdict is Verdict.READY:
            self.verdict = None
            self._history.append("it had answered, and died after that")
        self._wish = wish

    def _started_anew(self, now: float) -> None:
        self.verdict = None  # what answered before was another start
        self._wrong_answers = self._step = 0
        self._note = ""
        self._doomed_since = None
        self._inside = False
        self._timeline = Timeline(now, whole=True)
        self._load_begun = self._moved = now
        self.progress = Progress(Phase.STARTING)

    def _advance(self, container: Container, seen: Seen, now: float) -> None:
        before = self.progress
        self.passed = ()
        self._code = seen.code
        if seen.log is not None:
            self.line = last_line(seen.log)
        if seen.card_error:
            self._failure = _card_gone(seen.card_error)
            self._wish = _whole(container.started_at)
        elif container.status != "running":
            waiting = {"created": "created, not started", "paused": "paused (docker unpause)"}
            self.progress = Progress(Phase.NO_CONTAINER, waiting.get(container.status, container.status))
        elif seen.answer and seen.answer_start == self._step_key(container):
            self._answered(container, seen, now)
        else:
            self._read(seen)
        if before.phase in _IDLE:
            self._load_begun = now
        if seen.log is not None and self._timeline.whole:
            begun = engine_phases(self.target.engine, seen.log)
            self.passed = tuple(phase for phase in begun if before.phase < phase < self.progress.phase)
        if self.progress != before or self.progress.line != before.line:
            self._moved, self._doomed_since = now, None
        self._consider_doom(container, seen, now)
        if self.verdict is None:
            self._timeline.enter(self.progress.phase, now)
        self._check_time(now)

    def _read(self, seen: Seen) -> None:
        named = engine_progress(self.target.engine, seen.log) if seen.log else None
        if named:
            self.progress = named
        if seen.code == 200 and self.progress.phase is not Phase.LOADING:
            begun = self.progress.phase is Phase.ASKED
            self.progress = Progress(Phase.ASKED, self.progress.detail if begun else self._questions[self._step].what)
        elif seen.code == 503 and self.target.engine == "vllm":
            self.progress = Progress(Phase.SERVING, "its engine process is dead (HTTP 503)")
        elif self.progress.phase in (Phase.NO_CONTAINER, Phase.ASKED):
            self.progress = Progress(Phase.STARTING)

    def _consider_doom(self, container: Container, seen: Seen, now: float) -> None:
        """An engine that has printed a fatal error and neither ends nor gets on has failed."""
        if seen.code == 200 or self._wish or self.done:
            self._doomed_since = None
        elif self._doomed_since is not None:
            if now - self._doomed_since >= DOOMED_SECONDS:
                self._stuck = True
                self._wish = _whole(container.started_at)
        elif seen.log is not None and engine_is_doomed(self.target.engine, seen.log):
            self._doomed_since = now

    def _answered(self, container: Container, seen: Seen, now: float) -> None:
        assert seen.answer is not None
        judgement = judge(self.target, seen.answer, self._questions[self._step])
        if judgement.wrong is None:
            self._note = "; ".join(filter(None, (self._note, judgement.note)))
            if self._step + 1 < len(self._questions):
                self._step, self._step_due, self._wrong_answers = self._step + 1, True, 0
                self.progress = Progress(Phase.ASKED, self._questions[self._step].what)
                return
            self.stamp = stamp_text(container.id, container.started_at)
            seconds = self._timeline.seconds(now)
            if seconds and self._timeline.whole:
                self.load = LoadRecord(container.image, self.target.weights, self.target.gpus, seconds).text()
            self.progress = Progress(Phase.READY)
            self.verdict, self.ended = Verdict.READY, now
            return
        self._wrong_answers += 1
        if judgement.final or self._wrong_answers >= TRIES:
            self._failure = judgement.wrong
            self._wish = _whole(container.started_at)
        else:
            self.progress = Progress(Phase.ASKED, f"{judgement.wrong.cause}; asking again")

    # --- time -------------------------------------------------------------------------------------------------

    def _check_time(self, now: float) -> None:
        if self.done or self._wish:
            return
        if self.progress.phase in _IDLE:
            self._load_begun = self._moved = now
        if now - self._load_begun >= self._limits.ceiling_seconds or now - self.begun >= self._ceiling:
            self._failure = self._limits.over()
        elif now - self._moved >= self._limits.stall_seconds:
            self._failure = self._limits.stalled(now - self._moved, self.line)
        else:
            return
        self._failure_verdict = Verdict.TIMED_OUT
        if self._container is None:
            self._end(Verdict.TIMED_OUT, now, self._failure)
        else:
            self._wish = _whole(self._container.started_at)

    def remaining(self, now: float) -> float | None:
        """Seconds until it answers, by its last load of the same image, weights and cards; None when nothing is known."""
        container, last = self._container, self._last
        if container is None or last is None or self.done:
            return None
        if not last.is_of(container.image, self.target.weights, self.target.gpus):
            return None
        return last.remaining(self.progress, self._timeline.in_phase(self.progress.phase, now))

    def out_of_time(self, now: float) -> bool:
        """Has the whole chain's time passed? For when the host cannot be looked at."""
        return now - self.begun >= self._ceiling

    # --- verdicts ---------------------------------------------------------------------------------------------

    def _explained(self, log: str, now: float) -> None:
        """The log that a verdict was waiting for has come."""
        self._wish = None
        self._lines = tuple(map(without_secrets, last_lines(log)))
        if self._failure:
            known = engine_diagnosis(self.target.engine, log, self.target.known)
            better = known and known.id != UNKNOWN and not known.hint and self._failure.id in _LOG_KNOWS_BETTER
            self._end(self._failure_verdict, now, known if better else self._failure)
            return
        if self._stuck:
            self._note = "its process still runs"
            self._end(Verdict.FAILED, now, engine_diagnosis(self.target.engine, log, self.target.known))
            return
        container = self._container
        assert container is not None
        died_in = engine_progress(self.target.engine, log) or self.progress
        found = death_diagnosis(self.target.engine, container, self._exit_code, log, self.target.known)
        grown = container.restarts - self._baseline
        if container.status in ("exited", "dead", "created") or grown >= RESTARTS or not found.heals:
            self.progress = died_in
            self._note = "" if self._exit_code is None else f"exit code {self._exit_code}"
            self._end(Verdict.FAILED, now, found)
            return
        self._judged = container.restarts
        self._exit_code = None
        self._lines = ()
        self._history.append(f"it died before: {found.brief}")
        self.progress = Progress(Phase.STARTING, f"again, after it died: {found.brief}")

    def _end(self, verdict: Verdict, now: float, diagnosis: Diagnosis | None) -> None:
        self.verdict, self.ended, self.diagnosis = verdict, now, diagnosis
        self._wish = None

    def stop(self, verdict: Verdict, now: float, diagnosis: Diagnosis | None = None) -> None:
        """End the watch from outside: interrupted, out of reach, blocked by a neighbour."""
        if not self.done:
            self._end(verdict, now, diagnosis or self.diagnosis)

    def told_to_wait_for(self, neighbour: str) -> None:
        """Name the neighbour for which this instance waits."""
        if self.progress.phase is Phase.WAITING_FOR_GPU:
            self.progress = replace(self.progress, detail=neighbour)

    def holds_gpu_in_vain(self, now: float) -> bool:
        """It has the GPU's turn, will not become ready, and still runs."""
        if (
            self._container is None
            or self._container.status != "running"
            or self.progress.phase is Phase.WAITING_FOR_GPU
        ):
            return False
        stuck = self._stuck and now - self.ended >= STUCK_SECONDS
        return self.verdict is Verdict.TIMED_OUT or (self.verdict is Verdict.FAILED and stuck)

    def outcome(self) -> Outcome:
        assert self.verdict is not None
        return Outcome(
            self.target,
            self.verdict,
            self.ended - self.begun,
            self.progress,
            None if self.verdict is Verdict.READY else self.diagnosis,
            self._lines,
            "; ".join(filter(None, (self._note, *self._history))),
        )

"""Scripts that take minutes: they run detached on the host, so that a lost connection does not end them.

The job is known by its script. A run that was interrupted finds its job again, waits for it, and does not start a second one.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable

from stoker.ready.wait import ConnectionLost
from stoker.steps.action import Action, Say, Shell

#: Not below /var/lib/stoker: packages are installed before that directory is made.
JOBS = "/run/stoker-jobs"

_POLL_SECONDS = (0.1, 0.1, 0.2, 0.3, 0.5, 0.5, 0.5, 1.0)
_REPORT_SECONDS = 10.0

#: After so many looks in a row without an answer the host is given up.
_UNREAD_POLLS = 60


def start_script(name: str, script: str) -> str:
    """Start the job unless it runs already. Its output goes to NAME.log, its exit status to NAME.rc."""
    job = f"{JOBS}/{name}"
    runner = (
        f"echo $$ >{job}.pid; ( umask 022; {script}\n) >{job}.log 2>&1; echo $? >{job}.rc.new; mv {job}.rc.new {job}.rc"
    )
    return (
        f"umask 077; mkdir -p {JOBS} || exit 1; if test -f {job}.pid && test ! -f {job}.rc && kill -0 $(cat {job}.pid) 2>/dev/null; then echo running; else "
        f"rm -f {job}.*; : >{job}.log || exit 1; setsid sh -c {shlex.quote(runner)} </dev/null >/dev/null 2>&1 & echo started; fi"
    )


def poll_script(name: str) -> str:
    """A line ``job:`` with the exit status, ``running`` or ``lost``; then the end of the log."""
    job = f"{JOBS}/{name}"
    return (
        f"printf 'job:'; if test -f {job}.rc; then cat {job}.rc; elif kill -0 $(cat {job}.pid 2>/dev/null || echo 0) 2>/dev/null; then echo running; "
        f"elif test -f {job}.rc; then cat {job}.rc; elif test -f {job}.pid; then echo lost; else echo running; fi; tail -c 4000 {job}.log 2>/dev/null | tr '\\r' '\\n' | tail -n 30"
    )


def run_long(
    shell: Shell,
    say: Say,
    action: Action,
    show: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str | None:
    """Run an action's script to its end and say now and then how far it is. Returns what went wrong, or None.

    ``show`` gets the newest line of its output after every look instead, for a view of its own.
    """
    name = hashlib.sha256(action.script.encode()).hexdigest()[:16]
    ok, lines = shell(start_script(name, action.script))
    if not ok:
        return f"could not be started: {' '.join(lines)[-400:]}"
    reported, polls = clock(), 0
    said, unread = "", 0
    while True:
        sleep(_POLL_SECONDS[min(polls, len(_POLL_SECONDS) - 1)])
        polls += 1
        status, log = _poll(shell, name)
        unread = unread + 1 if status == "unread" else 0
        if unread >= _UNREAD_POLLS:
            return "the host cannot be reached any more; what was started there goes on, and the next deploy finds it again"
        if status == "0":
            return None
        if status == "lost":
            return "it ended without an exit status (was the host rebooted?)\n" + _tail(log)
        if status.isdigit():
            return f"exit status {status}\n" + _tail(log)
        last = next((line for line in reversed(log) if line.strip()), "")
        if show:
            show(last)
        elif last and last != said and clock() - reported >= _REPORT_SECONDS:
            say(f"  ... {last.strip()[:160]}")
            said, reported = last, clock()


def _poll(shell: Shell, name: str) -> tuple[str, list[str]]:
    """The job's status and the end of its log; ``unread`` when the host did not answer this time."""
    try:
        ok, lines = shell(poll_script(name))
    except ConnectionLost:
        return "unread", []
    for number, line in enumerate(lines if ok else []):
        if line.startswith("job:"):
            return line.removeprefix("job:").strip(), lines[number + 1 :]
    return "unread", []


def _tail(log: list[str]) -> str:
    return "\n".join(f"    | {line}" for line in log if line.strip())

"""A reboot in the middle of a deploy, and the way back."""

from __future__ import annotations

import time
from collections.abc import Callable

from stoker.ready.wait import ConnectionLost
from stoker.steps.action import Say, Shell

#: A server with much memory tests it for many minutes before it boots. Seconds.
BACK_SECONDS = 1200
#: After sshd answers: until systemd has started the rest, Docker with it. Seconds.
_BOOT_SECONDS = 180
_POLL_SECONDS = 2.0

_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
# A moment later, so that this command's own answer still comes through.
_REBOOT = "setsid sh -c 'sleep 1; systemctl reboot' </dev/null >/dev/null 2>&1 & echo ordered"
_BOOTED = "case $(systemctl is-system-running) in ''|initializing|starting|stopping) exit 1;; esac"


def reboot(
    shell: Shell,
    say: Say,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str | None:
    """Reboot the host and wait until it has booted anew. Returns what went wrong, or None."""
    ok, before = shell(_BOOT_ID)
    if not ok or not before:
        return f"the host's boot id cannot be read: {' '.join(before)[-300:]}"
    began = clock()
    ok, said = shell(_REBOOT)
    if not ok:
        return f"the reboot could not be ordered: {' '.join(said)[-300:]}"
    while True:
        if clock() - began > BACK_SECONDS:
            return f"it did not come back within {BACK_SECONDS} s after its reboot; look at its console, and deploy again when it is up"
        sleep(_POLL_SECONDS)
        answer = _asked(shell, _BOOT_ID)
        if answer and answer[0] and answer[1] != before:
            break
    booted = clock()
    while not ((answer := _asked(shell, _BOOTED)) and answer[0]) and clock() - booted < _BOOT_SECONDS:
        sleep(_POLL_SECONDS)
    say(f"it is back, {clock() - began:.0f} s after its reboot was ordered")
    return None


def _asked(shell: Shell, script: str) -> tuple[bool, list[str]] | None:
    """None while it cannot be reached; the shell tries to connect again by itself."""
    try:
        return shell(script)
    except ConnectionLost:
        return None

"""Why a container died: its log first, then what Docker says about its end."""

from __future__ import annotations

import signal
from dataclasses import replace

from stoker.ready.diagnosis import UNKNOWN, Diagnosis, diagnose_text
from stoker.ready.engines import engine_diagnosis
from stoker.ready.failure import NOTHING, Known
from stoker.ready.probe import Container


def death_diagnosis(
    engine: str, container: Container, exit_code: int | None, log: str, known: Known = NOTHING
) -> Diagnosis:
    """The best reason for a death. An unknown one counts as one that may heal: the next try decides.

    `exit_code` is None when the container runs again and its code is gone.
    """
    if container.error and (docker := diagnose_text(engine, container.error, known)):
        return (
            docker
            if docker.id != UNKNOWN
            else replace(docker, cause=f"Docker could not start it: {container.error[:200]}")
        )
    if container.error:
        return Diagnosis(UNKNOWN, "Docker could not start the container", "read Docker's reason", container.error[:400])
    found = engine_diagnosis(engine, log, known)
    if found and found.id != UNKNOWN and not found.hint:
        return found
    if container.out_of_memory:
        return Diagnosis(
            "host-out-of-memory",
            "the kernel killed it because the host, or its memory limit, ran out of memory",
            "see free -g on the host; move instances, or raise the container's memory limit",
        )
    # A warning explains an error, and nothing of an end that came from outside.
    if found and not (found.hint and exit_code in _FROM_OUTSIDE):
        return found if found.hint else replace(found, heals=True)
    return _by_exit_code(exit_code, log)


#: Told to stop, killed or crashed; and, with exit code 0, an engine whose process was killed.
_FROM_OUTSIDE = (0, 132, 134, 135, 137, 139, 143)


#: uvicorn, which serves vLLM, while a client still holds a connection (seen with 0.32.0: it waits as long as the client does).
_STOPPING = "Waiting for connections to close"


def _by_exit_code(code: int | None, log: str) -> Diagnosis:
    def told(name: str, cause: str, remedy: str) -> Diagnosis:
        return Diagnosis(name, cause, remedy, heals=True)

    match code:
        case 0:  # vLLM v0.19.1 and v0.32: the server exits with 0 some seconds after its engine process died
            return told(
                "ended-without-error",
                "it ended with exit code 0: it was told to stop, or its engine process died",
                "see dmesg on the host for a killed process (out of memory) or an Xid of the GPU",
            )
        case 137 if _STOPPING in log:
            return told(
                "stop-took-too-long",
                "it was told to stop, waited for a request that did not end, and was killed when its time was over",
                "take it out of the gateways before (stoker drain); shutdown-timeout, known from vLLM 0.18 on, ends requests in time",
            )
        case 137:
            return told(
                "killed",
                "it was killed (SIGKILL): by docker kill, by a stop that took too long, or by the kernel for want of memory",
                "see dmesg on the host for 'Out of memory: Killed process'",
            )
        case 132 | 134 | 135 | 139:
            return told(
                "crashed",
                f"it crashed ({signal.Signals(code - 128).name})",
                "see the last lines of the log; often driver and image do not fit: driver branch 580 for V100 and P40",
            )
        case 143:
            return told(
                "ended-without-error", "it was told to stop (SIGTERM)", "see who stopped it: docker events on the host"
            )
        case None:
            return told(UNKNOWN, "it died without saying why", "read the container's log")
    return told(UNKNOWN, f"it ended with exit code {code} without saying why", "read the container's log")

"""The system itself: whose it is, what it is, what time it has."""

from __future__ import annotations

from stoker.plan.look import Look, Reason, Reasons

#: Distributions by ID and codename, and how sure it is that a deploy onto them works.
SUPPORTED = {
    ("debian", "bookworm"): "Debian 12",
    ("debian", "trixie"): "Debian 13",
    ("ubuntu", "jammy"): "Ubuntu 22.04 (untested)",
    ("ubuntu", "noble"): "Ubuntu 24.04 (untested)",
}

#: Clocks further apart than this break package signatures and TLS.
CLOCK_SKEW_SECONDS = 300


def check(look: Look) -> Reasons:
    if look.state.uid != 0:
        yield Reason(
            f"the user {look.state.user or '?'} has no root privileges",
            "log in as root, or set `_sudo = True` for a user who may use sudo",
            "privileges",
        )
    if (look.state.os_id, look.state.os_codename) not in SUPPORTED:
        yield Reason(
            f"{look.state.os_name or 'this system'} is not supported",
            f"use one of {', '.join(SUPPORTED.values())}",
            "unsupported-system",
        )
    if look.state.architecture != "x86_64":
        yield Reason(
            f"the processor is {look.state.architecture}, the pinned engine images are built for x86_64",
            "use an x86_64 machine",
            "unsupported-system",
        )
    if look.state.time and abs(look.state.time - look.now) > CLOCK_SKEW_SECONDS:
        yield Reason(
            f"its clock is {abs(look.state.time - look.now)} s {'ahead of' if look.state.time > look.now else 'behind'} this machine's",
            "set both clocks, for instance with chrony; signatures and TLS fail otherwise",
            "clock",
        )

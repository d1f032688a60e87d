"""A driver that nothing holds: one of another branch than the described, or one that was not installed by packages.

What is of the described branch and not held is in the plan: the deploy holds it.
"""

from __future__ import annotations

from stoker.plan.look import Look, Reason, Reasons
from stoker.steps import driver_hold


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    if host.gpus is None or state.gpu_error:
        return  # the check of the driver says it
    found = driver_hold.installed(state)
    branch = host.settings.versions.driver_branch
    if not found:
        yield Reason(
            f"driver {state.driver} was not installed by packages that Stoker knows (a .run file?), so nothing holds it",
            f"the packages of branch {branch} can be held and are built anew for a new kernel; they replace it after nvidia-uninstall",
            "driver-hold",
            "note",
        )
    elif not driver_hold.of_branch(host, state):
        each = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
        yield Reason(
            f"its driver's packages are not of branch {branch}, so Stoker does not hold them: {each}",
            f"install branch {branch}, or describe the one that is there: versions = {{..., 'driver_branch': ...}}",
            "driver-hold",
            "warn",
        )

"""Proof that the internet machine serves what the hosts will ask it for."""

from __future__ import annotations

import sys

from lab.machines import content, hosts, ui
from lab.machines.config import Lab
from lab.machines.errors import LabError
from lab.machines.paths import LAB, ROOT
from lab.machines.processes import wait_until
from lab.machines.shell import run

ANSWER_SECONDS = 20


def wait_until_it_answers(lab: Lab) -> None:
    """Check names, packages, registry and hub from inside the lab's network, until all is right.

    Raises LabError with the checks that fail after ANSWER_SECONDS, and the units that have failed on the machine.
    """
    argv = [str(LAB / "run"), sys.executable, "-m", "lab.internet.check", "--keyring", str(content.keyring())]
    said = ""

    def all_right() -> bool:
        nonlocal said
        done = run(argv, cwd=ROOT, check=False)
        said = done.stdout + done.stderr
        return done.returncode == 0

    with ui.step("internet: names, packages, registry and hub answer"):
        if wait_until(all_right, ANSWER_SECONDS):
            return
    failed = hosts.execute(lab.internet, "systemctl", "--failed", "--plain", "--no-legend").strip()
    raise LabError(
        f"the internet machine does not serve as it should:\n{said.strip()}\n    failed units there: {failed or 'none'}"
    )

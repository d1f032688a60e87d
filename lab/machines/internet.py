"""Proof that the internet machine serves what the hosts will ask it for."""

from __future__ import annotations

import subprocess

from lab.machines import hosts, ui
from lab.machines.config import Lab
from lab.machines.errors import LabError
from lab.machines.paths import LAB
from lab.machines.processes import wait_until

ANSWER_SECONDS = 20

ADDRESSES = (
    "http://packages.internet.test/docker/linux/debian/gpg",
    "http://packages.internet.test/libnvidia-container/gpgkey",
    "http://registry.internet.test:5000/v2/",
    "http://hub.internet.test/",
)


def wait_until_it_answers(lab: Lab) -> None:
    """Ask each service by its name from the controller. Raises LabError with what is silent and what systemd says there."""
    silent: list[str] = []

    def all_answer() -> bool:
        silent[:] = [address for address in ADDRESSES if not _answers(address)]
        return not silent

    with ui.step("internet: names, packages, registry and hub answer"):
        if wait_until(all_answer, ANSWER_SECONDS):
            return
    failed = hosts.execute(lab.internet, "systemctl", "--failed", "--plain", "--no-legend").strip()
    raise LabError(f"the internet machine does not answer at {', '.join(silent)}; failed units there: {failed or 'none'}")


def _answers(address: str) -> bool:
    """Whether anything but a server error comes back; curl writes 000 when there is no answer at all."""
    argv = [str(LAB / "run"), "curl", "-s", "-o", "/dev/null", "-m", "3", "-w", "%{http_code}", address]
    code = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return code.startswith(("2", "3", "4"))

"""Debian packages: installed, in the wanted version, held where an upgrade would do harm."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from stoker.facts.state import HostState
from stoker.steps.action import Action

#: Unattended upgrades hold apt's lock for minutes on a fresh machine; pyinfra's apt operations fail at once on it.
_LOCK_SECONDS = 600

_APT = (
    f"DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -y -o DPkg::Lock::Timeout={_LOCK_SECONDS} "
    "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0"
)


@dataclass(frozen=True)
class Package:
    """A package and, where it is pinned, its version; without a revision (``-1~debian.13``) any revision of it."""

    name: str
    version: str = ""

    def is_in(self, state: HostState) -> bool:
        installed = state.packages.get(self.name)
        return installed is not None and (not self.version or f"{installed}-".startswith(f"{self.version}-"))

    @property
    def argument(self) -> str:
        any_revision = "" if "-" in self.version else "-*"
        return shlex.quote(f"{self.name}={self.version}{any_revision}" if self.version else self.name)


def missing(state: HostState, wanted: Sequence[Package]) -> list[Package]:
    return [package for package in wanted if not package.is_in(state)]


def install(
    packages: Sequence[Package], hold: bool = False, remove: Sequence[str] = (), interrupts: str = ""
) -> Action:
    """Install or change to the wanted version, and hold what has one (with ``hold``: everything).

    Refreshes apt's lists only when they do not know the packages.
    """
    # apt removes what has a - behind its name, in the same step.
    arguments = " ".join([*(package.argument for package in packages), *(f"{name}-" for name in remove)])
    command = f"{_APT} install --no-install-recommends --allow-downgrades --allow-change-held-packages {arguments}"
    script = f"{command} || {{ {update_command()} && {command}; }}"
    held = [shlex.quote(package.name) for package in packages if package.version or hold]
    if held:
        # An unattended upgrade would undo the pin, and restart Docker at a time of its own.
        script = f"{{ {script}; }} && apt-mark hold {' '.join(held)} >/dev/null"
    names = ", ".join(f"{package.name} {package.version}".strip() for package in packages)
    removed = f" instead of {', '.join(remove)}" if remove else ""
    return Action(f"install {names}{removed}", script=script, long=True, interrupts=interrupts)


def update_command() -> str:
    """Refresh apt's lists. Unlike apt-get's default it fails when a repository cannot be read."""
    return f"{_APT} update -o APT::Update::Error-Mode=any"

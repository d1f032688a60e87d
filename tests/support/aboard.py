"""Stoker on a host of the lab: a copy of Python, of its packages and of the checkout, for what only works on the host itself."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.machines.config import CONTAINER_PREFIX
from lab.machines.daemon import DOCKER_HOST
from lab.machines.paths import cache
from support.commands import ROOT, Done
from support.machine import Machine

#: All of it is here; a user who is not root can read it.
PLACE = "/srv/stoker-aboard"

_KEY = "internet/keys/lab-archive-keyring.asc"
_SOURCES = (
    "deploy.py",
    "tasks",
    "stoker",
    "templates",
    "images",
    "group_data",
    "fleets",
    "lab/__init__.py",
    "lab/group_data",
)
#: Of the interpreter; of its packages, which only tests and a build use.
_NO_LIBRARY = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip", "config-*")
_NO_PACKAGES = ("mypy*", "*__mypyc*", "openai", "pip", "setuptools", "hypothesis", "_pytest", "__editable__*")
_COPY_SECONDS = 60
_LIBRARY = f"LD_LIBRARY_PATH={PLACE}/python/lib"

#: The copy is never used but on the machine that it was made for.
_HERE = '[ "$(cat /etc/hostname)" = {name} ] && [ -d /etc/lab-gpu ] && ip -brief address | grep -q " {address}/"'


@dataclass(frozen=True)
class Aboard:
    """Stoker on ``machine``; ``settings`` are what its commands see in the environment, ``user`` who runs them."""

    machine: Machine
    settings: dict[str, str] = field(default_factory=dict)
    user: str = "root"

    def bring(self) -> None:
        """Copy everything there."""
        self.machine.sh(f"{self._here} && rm -rf {PLACE} && mkdir -p {PLACE}")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        prefix, packages = Path(sys.base_prefix), Path(sysconfig.get_path("purelib"))
        shared = [f"lib/{file.name}" for file in prefix.glob(f"lib/lib{version}.so*")]  # where Python is built so
        self._copy(prefix, f"{PLACE}/python", [f"bin/{version}", f"lib/{version}", *shared], _NO_LIBRARY)
        self._copy(packages, f"{PLACE}/python/lib/{version}/site-packages", ["."], _NO_PACKAGES)
        self._copy(ROOT, f"{PLACE}/checkout", _SOURCES, ())
        self._copy(cache(), f"{PLACE}/cache", [_KEY], ())
        began = self.machine.docker_exec(f"{_LIBRARY} {PLACE}/python/bin/{version} -c 'import gevent, pydantic, ssl'")
        if began.code:
            pytest.fail(
                f"this machine's Python ({platform.python_version()}) does not run on {self.machine.name}:\n{began}"
            )
        self.machine.sh(f"ln -s {version} {PLACE}/python/bin/python")

    def remove(self) -> None:
        self.machine.sh(f"rm -rf {PLACE}")

    def stoker(self, *argv: str, seconds: float = 60, terminal: bool = False) -> Done:
        """Run a verb there."""
        settings = {
            "STOKER_GROUP_DATA": "lab/group_data",
            "STOKER_LAB_CACHE": f"{PLACE}/cache",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.settings,
        }
        words = [f"{PLACE}/python/bin/python", "-m", "stoker", *argv]
        line = shlex.join(
            [
                "env",
                "-C",
                f"{PLACE}/checkout",
                _LIBRARY,
                *(f"{name}={value}" for name, value in settings.items()),
                *words,
            ]
        )
        if terminal:
            line = f"script -qec {shlex.quote(line)} /dev/null"
        if self.user != "root":
            line = f"runuser -l {self.user} -c {shlex.quote(line)}"
        return self.machine.docker_exec(f"{self._here} || exit 99; {line}", seconds)

    @property
    def _here(self) -> str:
        return _HERE.format(name=self.machine.name, address=self.machine.address)

    def _copy(self, source: Path, target: str, what: list[str] | tuple[str, ...], without: tuple[str, ...]) -> None:
        """By tar in the container: `docker cp` does not see what is mounted there."""
        container = f"{CONTAINER_PREFIX}{self.machine.name}"
        excluded = [f"--exclude={name}" for name in without]
        pack = ["tar", "-C", str(source), *excluded, "-cf", "-", *what]
        unpack = [
            "docker",
            "-H",
            DOCKER_HOST,
            "exec",
            "-i",
            container,
            "sh",
            "-c",
            f"mkdir -p {target} && tar -C {target} -xf -",
        ]
        with subprocess.Popen(pack, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as packing:
            done = subprocess.run(unpack, stdin=packing.stdout, capture_output=True, timeout=_COPY_SECONDS, check=False)
            assert packing.stderr is not None
            said = packing.stderr.read() + done.stderr
        if packing.returncode or done.returncode:
            pytest.fail(f"{source} cannot be copied to {self.machine.name}: {said.decode()}")

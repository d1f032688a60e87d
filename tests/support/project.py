"""A person's copy of the project's description, to be edited by a test without touching the checkout."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.commands import ROOT, Done, finish, run, start

_LAB_RUN = str(ROOT / "lab/run")
_SAME = ("deploy.py", "config.py", "tasks")
_OWN = ("inventory.py", "group_data")


def pyinfra_argv(*argv: str) -> list[str]:
    """The command line of plain pyinfra, which reads no settings of ours from the environment."""
    return ["pyinfra", "inventory.py", "deploy.py", "--group-data", str(ROOT / "lab/group_data"), *argv]


@dataclass(frozen=True)
class Project:
    """A directory with inventory.py, group_data/ and deploy.py, and the commands that a person runs in it."""

    directory: Path

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace the first ``old`` in one of the description's files."""
        path = self.directory / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def append(self, file: str, text: str) -> None:
        with (self.directory / file).open("a", encoding="utf-8") as handle:
            handle.write(f"\n{text}\n")

    def lab_run(self, *argv: str, seconds: float = 60, stdin: str = "", **env: str) -> Done:
        """Run a program in the lab's network."""
        return run(_LAB_RUN, *argv, seconds=seconds, cwd=self.directory, stdin=stdin, env=env)

    def stoker(self, *argv: str, seconds: float = 120, **env: str) -> Done:
        return self.lab_run("stoker", *argv, seconds=seconds, **env)

    def deploy(self, *argv: str, seconds: float = 120, **env: str) -> Done:
        return self.stoker("deploy", "--yes", *argv, seconds=seconds, **env)

    def check(self, *argv: str, **env: str) -> Done:
        """Predict."""
        return self.stoker("deploy", "--check", *argv, seconds=60, **env)

    def pyinfra(self, *argv: str, seconds: float = 120) -> Done:
        return self.lab_run(*pyinfra_argv(*argv), seconds=seconds)

    def at_once(self, *commands: Sequence[str], seconds: float = 60) -> list[Done]:
        """Run several programs in the lab's network at the same time."""
        return [finish(process, seconds) for process in [self.start(*argv) for argv in commands]]

    def predicted(self) -> tuple[Done, set[tuple[str, str]]]:
        """What `stoker deploy --check` says, and (operation, host) of everything that plain pyinfra predicts as changed."""
        dry = start(_LAB_RUN, *pyinfra_argv("--json"), cwd=self.directory)
        check = self.check()
        done = finish(dry, 60)
        assert done.code == 0, done
        plan = json.loads(done.out)["plan"]
        return check, {(operation["name"], host) for operation in plan for host in operation["hosts_with_change"]}

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a program in the lab's network; hand it to :meth:`finish`."""
        return start(_LAB_RUN, *argv, cwd=self.directory)

    def finish(self, process: subprocess.Popen[str], seconds: float = 120) -> Done:
        return finish(process, seconds)


@dataclass(frozen=True)
class Served:
    """How the fleet came to be: from bare hosts by one deploy, then a smoke test."""

    deploy: Done
    smoke: Done


def copy_to(directory: Path) -> Project:
    """The checkout's description in ``directory``."""
    for name in _SAME:
        (directory / name).symlink_to(ROOT / name)
    for name in _OWN:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)
    return Project(directory)


def with_fleets(project: Project) -> Project:
    """The same project, with the further fleets in it."""
    shutil.copytree(ROOT / "fleets", project.directory / "fleets", ignore=shutil.ignore_patterns("__pycache__"))
    return project


def changed(deploy: Done) -> set[tuple[str, str]]:
    """(operation, host) of everything that a deploy reports as changed."""
    return set(re.findall(r"^(\S.*?)\s{2,}(\S+)\s+changed\s*$", deploy.err, re.MULTILINE))


CHECKOUT = Project(ROOT)

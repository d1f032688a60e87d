"""Inventories in a temporary directory: the project's own, edited, and read as `stoker` reads them."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stoker.spec.fleet import Fleet
from stoker.spec.problems import Problem
from support.forked import Call, call

PROJECT = Path(__file__).resolve().parents[2]
TESTS = PROJECT / "tests"


@dataclass(frozen=True)
class Answer:
    """What `load_fleet` returned, or the problems that it raised, or the traceback of any other exception."""

    fleet: Fleet | None = None
    problems: tuple[Problem, ...] = ()
    message: str = ""
    crash: str = ""


@dataclass
class Description:
    """A copy of the project's inventory and group data, for editing."""

    folder: Path

    @classmethod
    def copy(cls, folder: Path) -> Description:
        shutil.copy(PROJECT / "inventory.py", folder)
        shutil.copytree(PROJECT / "group_data", folder / "group_data", ignore=shutil.ignore_patterns("__pycache__"))
        return cls(folder)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text that occurs exactly once."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def append(self, file: str, text: str) -> None:
        path = self.folder / file
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(before + text, encoding="utf-8")

    def ask(self, overlays: Sequence[str] = (), inventory: str = "inventory.py") -> Answer:
        found = call(Call("support.description", "read", (inventory, tuple(overlays)), cwd=self.folder))
        assert isinstance(found.value, Answer), found
        return found.value

    def load(self, overlays: Sequence[str] = (), inventory: str = "inventory.py") -> Fleet:
        answer = self.ask(overlays, inventory)
        assert answer.fleet is not None, answer.message or answer.crash
        return answer.fleet

    def problems(self, overlays: Sequence[str] = (), inventory: str = "inventory.py") -> tuple[Problem, ...]:
        answer = self.ask(overlays, inventory)
        assert not answer.crash, answer.crash
        assert answer.problems, "the description was accepted"
        return answer.problems


def read(inventory: str, overlays: Sequence[str]) -> Answer:
    """Runs in a process of its own: pyinfra remembers compiled files by name."""
    from stoker.inventory import load_fleet
    from stoker.spec.problems import SpecError

    try:
        return Answer(fleet=load_fleet(Path(inventory), list(overlays)))
    except SpecError as error:
        return Answer(problems=tuple(error.problems), message=str(error))
    except BaseException:
        return Answer(crash=traceback.format_exc())

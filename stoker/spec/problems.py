"""What is wrong with a description, in the words of a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One error: where it is, what is there, why it cannot work, and what to do."""

    where: str  #: file or group, for instance ``group_data/llm.py``
    field: str  #: path of the field, for instance ``stacks[0].instances[2].port``
    value: str  #: what is written there, shortened
    reason: str
    remedy: str
    instance: str = ""  #: the instance's name where the problem belongs to one

    def __str__(self) -> str:
        who = f"{self.instance}: " if self.instance else ""
        value = f" = {self.value}" if self.value else ""
        return f"{self.where}: {who}{self.field}{value}\n    why:    {self.reason}\n    remedy: {self.remedy}"


class SpecError(Exception):
    """The description cannot be used. Holds every problem that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = list(unique)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the description; no host was contacted."
        super().__init__("\n".join([head, *(str(problem) for problem in self.problems)]))

"""pyinfra's fact of a host's state: one round trip."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra.api import FactBase, StringCommand

from stoker.facts.probe import Questions, script
from stoker.facts.state import HostState as State
from stoker.facts.state import parse


class HostState(FactBase[State]):
    """Everything that Stoker's steps decide by."""

    @staticmethod
    def default() -> State:
        return State()

    def command(self, questions: Questions) -> StringCommand:
        return StringCommand(script(questions))

    def process(self, output: Iterable[str]) -> State:
        return parse(output)

"""`stoker adopt` with deploys that end as they are told to. For a process of its own (support/forked.py): it imports pyinfra's command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from support import handmade
from support.states import bare, fleet_and_host


def went_back(ends: Mapping[str, int], without: str) -> list[str]:
    """What go-back.sh is called with while the documents' stack is replaced, each call its arguments.

    ``ends``: container -> how its deploy ends, the empty name for the last one, of whatever is left; every other one succeeds.
    ``without``: a container that the documents' stack lacks.
    """
    from stoker.run import adopt

    class Deploys(adopt.Run):
        def deploy(self, found: adopt.Found, only: str = "") -> int:
            return ends.get(only, 0)

    commands: list[str] = []
    program: Any = adopt
    program._on = lambda found, command, seconds=0.0: commands.append(command)
    _, host = fleet_and_host("llm")
    old = {name: one for name, one in handmade.containers("memoryx-hybrid.yaml", "").items() if name != without}
    state = replace(bare(host), docker_version="28.5.2", containers=old)
    login: Any = None  # nothing is run there
    found = adopt.Found(host, login, state, "/var/lib/stoker/adopted/20261124-200000", False)
    program._go_back = lambda found: ""
    program._adopt([found], Deploys(Path("inventory.py"), ()), check=False, yes=True)
    return [command.partition("|| sh ")[2].partition(" ")[2] for command in commands if "go-back.sh" in command]

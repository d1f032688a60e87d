"""What is not as it was deployed: every chapter of a deploy is asked what it would do."""

from __future__ import annotations

from dataclasses import replace

from stoker.doctor.look import Line, LiveLook
from stoker.facts.state import HostState
from stoker.spec.fleet import Fleet, Host
from stoker.steps.chapters import chapters

#: Chapters that can be asked while Docker does not answer; of what it holds nothing is known then.
_WITHOUT_DOCKER = ("Package sources", "Base packages", "Docker", "NVIDIA driver", "Directories", "Engine ports")


def drift(look: LiveLook) -> list[Line]:
    """One line for each chapter that would do something. Asked only where the preflight refuses nothing: a deploy would not either."""
    differs = differences(look.fleet, look.host, look.state)
    found = [Line("finding", words, look.commands.deploy()) for words in differs]
    return found or [Line("ok", "nothing differs from the description")]


def differences(fleet: Fleet, host: Host, state: HostState) -> list[str]:
    """What each chapter would do, in words; that a container ends again and again is told elsewhere.

    Raises where the preflight refuses, as `chapters` does.
    """
    return [
        f"{chapter}: {'; '.join(action.description for action in actions)}"
        for chapter, actions in chapters(fleet, host, settled(state)).items()
        if actions and (state.docker_running or chapter in _WITHOUT_DOCKER)
    ]


def settled(state: HostState) -> HostState:
    """A container between two starts counts as running: its ports are its own, whoever holds them at this moment."""
    containers = {
        name: replace(one, status="running") if one.status == "restarting" else one
        for name, one in state.containers.items()
    }
    return replace(state, containers=containers)

"""What is not as it was deployed: every chapter of a deploy is asked what it would do."""

from __future__ import annotations

from stoker.doctor.look import Line, LiveLook
from stoker.steps.chapters import chapters

#: Chapters that can be asked while Docker does not answer; of what it holds nothing is known then.
_WITHOUT_DOCKER = ("Package sources", "Base packages", "Docker", "NVIDIA driver", "Directories", "Engine ports")


def drift(look: LiveLook) -> list[Line]:
    """One line for each chapter that would do something. Asked only where the preflight refuses nothing: a deploy would not either."""
    found = [
        Line("finding", f"{chapter}: {'; '.join(action.description for action in actions)}", look.commands.deploy())
        for chapter, actions in chapters(look.fleet, look.host, look.state).items()
        if actions and (look.state.docker_running or chapter in _WITHOUT_DOCKER)
    ]
    return found or [Line("ok", "nothing differs from the description")]

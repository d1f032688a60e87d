"""Docker and its configuration."""

from __future__ import annotations

import json

from stoker.plan.look import Look, Reason, Reasons
from stoker.steps.docker import DAEMON_JSON


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    if state.docker_from_snap:
        yield Reason(
            "Docker is installed as a snap, which cannot use the container toolkit",
            "snap remove docker",
            "docker-from-snap",
        )
    if host.settings.docker.source == "distribution" and state.os_codename == "bookworm":
        yield Reason(
            "Debian 12's own packages hold no Compose 2", 'use docker = {"source": "docker-ce"}', "docker-source"
        )
    text = state.contents.get(DAEMON_JSON, "")
    try:
        valid = not text.strip() or isinstance(json.loads(text), dict)
        reason = "it is not an object"
    except ValueError as error:
        valid, reason = False, str(error)
    if not valid:
        yield Reason(
            f"{DAEMON_JSON} cannot be read ({reason}); Docker would not start with it",
            "correct or remove the file; Stoker does not overwrite it",
            "daemon-json",
        )

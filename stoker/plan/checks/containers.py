"""Containers that have a described name and are not Stoker's."""

from __future__ import annotations

from stoker.plan.handmade import blockers
from stoker.plan.look import Look, Reason, Reasons


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    by_hand = {old.name for containers in blockers(host, state).values() for old in containers}
    for stack in host.stacks:
        for name in stack.containers:
            container = state.containers.get(name)
            if container is not None and container.project != stack.project and name not in by_hand:
                whose = (
                    f"belongs to the project {container.project}" if container.project else "was not made by Compose"
                )
                yield Reason(
                    f"a container named {name} exists already and {whose}",
                    f"docker rm -f {name} on the host, or choose another name",
                    "container-name",
                )

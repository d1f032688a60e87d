"""Containers that have a described name and are not Stoker's."""

from __future__ import annotations

from stoker.plan.look import Look, Reason, Reasons


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    for stack in host.stacks:
        names = [instance.name for instance in stack.instances] + ([stack.gateway.container] if stack.gateway else [])
        for name in names:
            container = state.containers.get(name)
            if container is not None and container.project != stack.project:
                whose = (
                    f"belongs to the project {container.project}" if container.project else "was not made by Compose"
                )
                yield Reason(
                    f"a container named {name} exists already and {whose}",
                    f"docker rm -f {name} on the host, or choose another name",
                    "container-name",
                )

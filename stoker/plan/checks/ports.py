"""Ports that somebody else holds."""

from __future__ import annotations

from stoker.plan.handmade import blockers
from stoker.plan.look import Look, Reason, Reasons


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    owners = {listener.port: listener.process for listener in state.listeners}
    projects = {stack.project for stack in host.stacks}
    by_hand = {old.name for containers in blockers(host, state).values() for old in containers}
    published = {
        port: container
        for container in state.containers.values()
        if container.status in ("running", "paused", "restarting")  # any other holds no port until it is started
        for port in container.ports
    }
    for stack in host.stacks:
        users = [(instance.port, instance.name) for instance in stack.instances]
        users += [(stack.web_ui.port, stack.web_ui.container)] if stack.web_ui else []
        users += [(port, stack.gateway.container) for port in stack.gateway.ports] if stack.gateway else []
        for port, name in users:
            container = published.get(port)
            if container is not None and container.name in by_hand:
                continue  # the check of earlier stacks has said so
            if container is not None and container.configuration and (not look.only or container.project in projects):
                continue  # Stoker's own, also of another instance or project: the same deploy frees the port
            if container is not None:
                holder = f"the container {container.name}"
            elif port in owners:
                holder = owners[port] or "another process"
            else:
                continue
            yield Reason(
                f"port {port}, wanted by {name}, is held by {holder}",
                "stop it, or choose another port",
                "port-taken",
            )

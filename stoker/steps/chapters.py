"""All chapters of a deploy at once, for one host: what is not as described. Pure.

The chapters and their order are those of deploy.py; a test compares them.
"""

from __future__ import annotations

from stoker.facts.state import HostState
from stoker.spec.fleet import Fleet, Host
from stoker.steps import (
    acme,
    base,
    docker,
    driver,
    firewall,
    gateway,
    images,
    layout,
    models,
    ollama,
    service_keys,
    sources,
    stack,
    toolkit,
)
from stoker.steps.action import Action


def chapters(fleet: Fleet, host: Host, state: HostState) -> dict[str, list[Action]]:
    """Name of the operation -> what it finds missing. Raises where the preflight refuses: KeyError for a card that is not
    there, ValueError for a daemon.json that cannot be read."""
    return {
        "Package sources": sources.actions(host, state),
        "Base packages": base.actions(host, state),
        "Docker": docker.actions(host, state),
        "NVIDIA driver": driver.actions(host, state),
        "NVIDIA container toolkit": toolkit.actions(host, state),
        "Directories": layout.actions(host, state),
        "Images": images.actions(host, state),
        "GPUs in containers": images.probes(host, state),
        "Model files": models.actions(host, state, None),
        "Engine ports": firewall.actions(fleet, host, state),
        "First certificates": [action for entry in host.stacks for action in acme.placeholders(entry, state)],
        "Keys of services": service_keys.actions(host, state, {}),
        "Stack files": [action for entry in host.stacks for action in stack.file_actions(fleet, host, entry, state)],
        "Containers": [
            *stack.forgotten(host, state),
            *(
                action
                for entry in host.stacks
                for action in [
                    *stack.container_actions(host, entry, state),
                    *stack.note_actions(host, entry, state),
                ]
            ),
        ],
        "Ollama models": ollama.actions(host, state),
        "Gateway configuration": [
            action for entry in host.stacks for action in gateway.actions(fleet, host, entry, state)
        ],
        "Certificates": [action for entry in host.stacks for action in acme.issue(host, entry, state)],
    }

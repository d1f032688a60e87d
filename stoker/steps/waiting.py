"""Which instances a wait is for."""

from __future__ import annotations

from collections.abc import Collection

from stoker.engine.registry import engine_of
from stoker.facts.state import HostState
from stoker.ready.stamp import is_proven
from stoker.ready.target import Target
from stoker.render.compose import services
from stoker.spec.fleet import Host
from stoker.spec.gpu_name import label
from stoker.spec.instance import Instance
from stoker.steps.layout import READY
from stoker.steps.stack import container_reason, uuids


def unproven(described: Host, found: HostState, only: Collection[str] = (), everything: bool = False) -> list[Target]:
    """The instances whose running start has not been proven by a real answer, or which are not healthy now.

    ``everything``: all of them, because all will be started anew.
    """
    rendered = {
        service.container: service for stack in described.stacks for service in services(described, stack, uuids(found))
    }
    targets = []
    for _, instance in described.instances():
        if only and instance.name not in only:
            continue
        container = found.containers.get(instance.name)
        stamp = found.contents.get(f"{READY}/{instance.name}", "")
        proven = (
            container is not None
            and container.running
            and not container_reason(rendered[instance.name], found)
            and is_proven(container.id, container.started_at, stamp)
            and found.answers.get(instance.name) == "200"
        )
        if everything or not proven:
            targets.append(_target(described, found, instance))
    return targets


def _target(described: Host, found: HostState, instance: Instance) -> Target:
    model = described.model_of(instance)
    embeds = engine_of(instance.engine).kind(instance.arguments) == "embeddings"
    cards = uuids(found) if described.profile_of(instance).uses_cards else {}
    return Target(
        host=described.name,
        name=instance.name,
        engine=instance.engine,
        container=instance.name,
        port=instance.port,
        model=instance.model,
        expect_dimensions=model.dimensions if embeds else None,
        pooling=embeds,
        gpu_required=described.profile_of(instance).uses_cards,
        gpus=tuple(map(label, instance.gpus)),
        uuids=tuple(cards[name] for name in instance.gpus if name in cards),
        weights=model.origin,
    )

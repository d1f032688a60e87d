"""What the description and the memory plan say of the instances that are waited for: for their warm-up and for diagnoses. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from stoker.engine.registry import engine_of
from stoker.facts.state import HostState
from stoker.models.card import Cards
from stoker.plan.memory.predict import Prediction
from stoker.plan.memory_plan import plan_host
from stoker.ready.failure import Known
from stoker.ready.target import Target
from stoker.ready.warm_up import prompt_lengths
from stoker.spec.fleet import Host
from stoker.spec.instance import Instance

#: --max-num-batched-tokens where it is not given: vLLM 0.19.1's server on cards below 70 GiB; Ollama's batch is as long (0.30 to 0.32).
_BATCH = 2048


def informed(targets: Iterable[Target], host: Host, cards: Cards, state: HostState | None) -> list[Target]:
    """The targets with what is known of them. Namesakes of no instance of the host stay as they are."""
    instances = {instance.name: instance for _, instance in host.instances()}
    predictions = {one.name: one.prediction for one in plan_host(host, cards, state).instances}
    return [
        _with(target, host, instances[target.name], predictions.get(target.name))
        if target.name in instances
        else target
        for target in targets
    ]


def _with(target: Target, host: Host, instance: Instance, memory: Prediction | None) -> Target:
    given = instance.arguments
    batch = given.get("max-num-batched-tokens")
    context = memory.instance.max_model_len if memory else given.get("max-model-len")
    return replace(
        target,
        pooling=engine_of(instance.engine).kind(given) == "embeddings",
        prompts=prompt_lengths(
            context if isinstance(context, int) and context > 0 else None,
            batch if isinstance(batch, int) and batch > 0 else _BATCH,
            host.profile_of(instance).uses_cards,
        ),
        known=Known(host.image_of(instance), memory),
    )

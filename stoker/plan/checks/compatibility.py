"""Whether each image runs its model on its cards, by the table of stoker/plan/compatibility."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.facts.gpus import Gpu
from stoker.facts.identity import chosen
from stoker.models.card import ModelCard
from stoker.plan.checks.driver import capability
from stoker.plan.compatibility import Answer, Question, answers
from stoker.plan.look import Look, Reason, Reasons
from stoker.spec.instance import Instance

#: Said of the host as a whole by the check of the driver; once is enough.
_OF_THE_DRIVER = {"driver-after-580", "driver-cuda-12"}


def check(look: Look) -> Reasons:
    told: dict[tuple[Answer, str], list[str]] = {}
    for _, instance in look.host.instances():
        if not look.host.profile_of(instance).uses_cards:
            continue
        # Cards of one kind have the same answers.
        kinds = {(gpu.name, gpu.compute_capability): gpu for gpu in chosen(look.state, instance.gpus)}
        for gpu in kinds.values():
            for answer in answers(question(look, instance, gpu)):
                if answer.row not in _OF_THE_DRIVER:
                    told.setdefault((answer, gpu.name), []).append(instance.name)
    for (answer, _), names in told.items():
        who = ", ".join(dict.fromkeys(names))
        yield Reason(answer.reason, answer.remedy, answer.anchor, answer.verdict, who)


def question(look: Look, instance: Instance, gpu: Gpu) -> Question:
    """An instance on a card, with what is known of its model."""
    model = look.host.model_of(instance)
    card = look.cards.of(model) if look.cards else None
    config = card.config if isinstance(card, ModelCard) else {}
    quantisation = config.get("quantization_config")
    given: Mapping[str, object] = quantisation if isinstance(quantisation, Mapping) else {}
    bits = given.get("bits")
    capable = capability(gpu)
    return Question(
        engine=instance.engine,
        image=look.host.image_of(instance),
        card=gpu.name,
        compute_capability=capable if capable > (0, 0) else None,
        driver=look.state.driver,
        kernel_module=look.state.kernel_module,
        arguments=instance.arguments,
        environment=instance.environment,
        model=model.origin.partition("@")[0],
        quantization=str(given.get("quant_method") or ""),
        quantization_bits=bits if isinstance(bits, int) else None,
        model_type=str(config.get("model_type") or ""),
        torch_dtype=str(config.get("torch_dtype") or config.get("dtype") or ""),
    )

"""What vLLM refuses whatever memory there is: a context beyond the model's own, heads that the cards cannot share. Pure.

Source: vLLM's config/model.py (`_get_and_verify_max_len`, `verify_with_parallel_config`) and the assertions on key-value heads in its
models/llama.py and models/qwen2.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stoker.plan.memory.predict import InstanceMemory, Prediction, predict
from stoker.plan.memory.verdict import Finding, longest_start, starts


def limits(one: Prediction, heads: int | None, longer: bool) -> Iterator[Finding]:
    """``heads``: of the model's attention, None if not known. ``longer``: vLLM was told to allow a longer context than the model's."""
    own, asked = one.instance.layout.positions, one.instance.max_model_len
    if own and asked > own and not longer:
        at_own = predict(replace(one.instance, max_model_len=own), one.total)
        shorter = own if starts(at_own) else longest_start(at_own)
        text = f"max-model-len {asked} is more than the {own} tokens that the model's configuration allows: vLLM would refuse to start"
        yield Finding("refuse", text, (f"max-model-len {shorter}",) if shorter else ())
    parts = one.instance.settings.tensor_parallel
    if heads and not _can_share(one.instance, heads, parts):
        keys = one.instance.layout.kv_heads
        of_keys = f" and {keys} key-value heads" if keys not in (0, heads) else ""
        text = f"{heads} attention heads{of_keys} cannot be divided among {parts} cards (tensor-parallel-size {parts}): vLLM would refuse to start"
        yield Finding("refuse", text, tuple(_other_ways(one, heads)))


def _can_share(instance: InstanceMemory, heads: int, parts: int) -> bool:
    """Key-value heads are divided too, or where there are fewer than cards each is on several."""
    keys = instance.layout.kv_heads if instance.layout.kind == "keys and values" else 0
    return heads % parts == 0 and (not keys or keys % parts == 0 or parts % keys == 0)


def _other_ways(one: Prediction, heads: int) -> Iterator[str]:
    """Fewer cards, or the same ones one after the other, where it starts for certain."""
    settings = one.instance.settings
    for parts in range(settings.tensor_parallel - 1, 0, -1):
        fewer = replace(one.instance, settings=replace(settings, tensor_parallel=parts))
        if _can_share(one.instance, heads, parts) and starts(predict(fewer, one.total)):
            yield f"tensor-parallel-size {parts} on {fewer.cards} cards"
            break
    stages = one.instance.cards
    in_turn = replace(one.instance, settings=replace(settings, tensor_parallel=1, pipeline_parallel=stages))
    if starts(predict(in_turn, one.total)):
        yield f"pipeline-parallel-size {stages} without tensor-parallel-size"

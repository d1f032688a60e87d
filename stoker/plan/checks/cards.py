"""The cards against those that are described."""

from __future__ import annotations

from stoker.plan.look import Look, Reason, Reasons


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    if state.gpu_error:
        return  # the check of the driver says it
    want = host.gpus
    if len(state.gpus) != want.count:
        yield Reason(
            f"it has {len(state.gpus)} GPU{'' if len(state.gpus) == 1 else 's'} ({', '.join(gpu.name for gpu in state.gpus)}), described are {want.count}",
            "correct `gpus` in group_data, or look why a card is missing (lspci | grep -i nvidia)",
            "gpu-count",
        )
    for gpu in state.gpus:
        if want.card.lower() not in gpu.name.lower():
            yield Reason(
                f"GPU {gpu.index} is a {gpu.name}, described is {want.card!r}",
                "correct `gpus` in group_data",
                "gpu-count",
            )
        # nvidia-smi reports a little less than the nominal size (a 24 GB P40 has 23040 MiB with ECC on).
        elif not 0.9 * want.memory_gib <= gpu.memory_mib / 1024 <= 1.05 * want.memory_gib:
            yield Reason(
                f"GPU {gpu.index} has {gpu.memory_mib / 1024:.1f} GiB, described are {want.memory_gib}",
                "correct `gpus` in group_data",
                "gpu-count",
            )

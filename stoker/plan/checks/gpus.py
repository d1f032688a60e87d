"""The cards against those that are described, and each name of the description against its card."""

from __future__ import annotations

from collections import defaultdict

from stoker.facts import identity
from stoker.facts.gpus import Gpu
from stoker.facts.state import HostState
from stoker.plan.look import Look, Reason, Reasons
from stoker.spec.fleet import Host
from stoker.spec.gpu_name import GpuName, label


def check(look: Look) -> Reasons:
    host, state = look.host, look.state
    if state.gpu_error:
        return  # the check of the driver says it
    want = host.gpus
    if want is None:
        return
    if len(state.gpus) != want.count:
        yield Reason(
            f"it has {len(state.gpus)} GPU{'' if len(state.gpus) == 1 else 's'}, described are {want.count}; there are {listed(state)}",
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
    yield from _names(host, state)
    yield from _divided(host, state)
    yield from _order(host, state)


def listed(state: HostState) -> str:
    """The cards that are there, by every name that a description may use."""
    each = (f"{gpu.index} = {gpu.uuid} = {gpu.bus_id} ({gpu.name}, {_gib(gpu)})" for gpu in state.gpus)
    return ", ".join(each) or "none"


def _gib(gpu: Gpu) -> str:
    return f"{gpu.memory_mib / 1024:.0f} GiB"


def _used(host: Host) -> dict[GpuName, list[str]]:
    """Each name of a card -> the instances that use it."""
    used: dict[GpuName, list[str]] = defaultdict(list)
    for _, instance in host.instances():
        for name in instance.gpus:
            used[name].append(instance.name)
    return used


def _names(host: Host, state: HostState) -> Reasons:
    """Names without a card, and cards that go by two names: what shares a card is seen by its name."""
    cards, record = identity.by_name(state), identity.recorded(state)
    by_uuid: dict[str, list[GpuName]] = defaultdict(list)
    for name, users in _used(host).items():
        if name in cards:
            by_uuid[cards[name].uuid].append(name)
        elif isinstance(name, int) and name in record:
            yield Reason(
                f"GPU {name}, wanted by {', '.join(users)}, has been {record[name]}, which is gone; there are {listed(state)}",
                f"look why the card is missing (lspci | grep -i nvidia); if it was replaced, remove {identity.RECORD} on the host, "
                "so that the indices mean the cards as nvidia-smi counts them now, or name cards by their UUIDs in `gpus`",
                "gpu-missing",
            )
        elif not isinstance(name, int) or (host.gpus and len(state.gpus) == host.gpus.count):  # else said by the count
            yield Reason(
                f"{label(name)}, wanted by {', '.join(users)}, is not there; there are {listed(state)}",
                "correct the instance's `gpus` in group_data, or look why the card is missing (lspci | grep -i nvidia)",
                "gpu-missing",
            )
    for names in by_uuid.values():
        if len(names) > 1:
            yield Reason(
                f"{' and '.join(map(label, names))} are the same card; there are {listed(state)}",
                "name the card in one way in all its instances' `gpus`",
                "gpu-missing",
            )


def _divided(host: Host, state: HostState) -> Reasons:
    """With MIG on, CUDA sees only a card's parts, and none before some are made (NVIDIA's MIG user guide)."""
    cards = identity.by_name(state)
    for name, users in _used(host).items():
        gpu = cards.get(name)
        if gpu and gpu.mig:
            yield Reason(
                f"GPU {gpu.index} ({gpu.name}), wanted by {', '.join(users)}, is divided (MIG): programs see only its parts, and "
                "Stoker hands out whole cards",
                f"nvidia-smi -i {gpu.uuid} -mig 0, on the host, when nobody uses the parts; or describe another card",
                "gpu-divided",
            )


def _order(host: Host, state: HostState) -> Reasons:
    there = {gpu.uuid: gpu.index for gpu in state.gpus}
    used = _used(host)
    moved = {
        index: there[uuid]
        for index, uuid in sorted(identity.recorded(state).items())
        if index in used and uuid in there and there[uuid] != index
    }
    if moved:
        each = ", ".join(f"GPU {index} of the description is now {now}" for index, now in moved.items())
        yield Reason(
            f"nvidia-smi counts its cards in another order than at the first deploy: {each}; every model stays on its card",
            f"nothing has to be done; to give the indices their new meaning instead, remove {identity.RECORD} there and deploy",
            "gpu-order",
            "note",
        )

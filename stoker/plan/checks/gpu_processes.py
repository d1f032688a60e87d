"""Who else computes on the cards, and what that leaves for the instances."""

from __future__ import annotations

from collections.abc import Iterator

from stoker.engine.registry import engine_of
from stoker.facts.gpus import Gpu, GpuProcess
from stoker.facts.state import Container, HostState
from stoker.plan.handmade import blockers
from stoker.plan.look import Look, Reason, Reasons
from stoker.spec.fleet import Host
from stoker.spec.instance import Instance
from stoker.steps import stack


def check(look: Look) -> Reasons:
    if look.host.gpus is None:
        return
    # A container of an earlier stack makes way (stoker adopt); the check of such stacks speaks of it.
    leaving = {old.id for olds in blockers(look.host, look.state).values() for old in olds}
    # So does one of Stoker's that is no longer described.
    leaving |= {
        one.id
        for one in look.state.containers.values()
        if not look.only and one.configuration and not _is_described(look.host, one)
    }
    for gpu in look.state.gpus:
        others = [
            process
            for process in look.state.gpu_processes
            if process.gpu_uuid == gpu.uuid
            and look.state.gpu_containers.get(process.pid) not in leaving
            and not _is_ours(look.host, container_of(process, look.state))
        ]
        if others:
            yield from _left(look, gpu, others)


def _is_described(host: Host, container: Container) -> bool:
    return any(container.project == stack.project and container.name in stack.containers for stack in host.stacks)


def container_of(process: GpuProcess, state: HostState) -> Container | None:
    """The container that a process on a card belongs to."""
    identity = state.gpu_containers.get(process.pid)
    return next((one for one in state.containers.values() if one.id == identity), None)


def _is_ours(host: Host, container: Container | None) -> bool:
    """Also a container of a described name that is not Stoker's: the check of the containers speaks of that."""
    if container is None:
        return False
    names = {instance.name for _, instance in host.instances()}
    return container.name in names or container.project in {one.project for one in host.stacks}


def _left(look: Look, gpu: Gpu, others: list[GpuProcess]) -> Iterator[Reason]:
    who = ", ".join(_words(process, look.state) for process in others)
    taken = sum(process.used_mib or 0 for process in others)
    uuids = stack.uuids(look.state)
    shares = {
        instance.name: share
        for _, instance in look.host.instances()
        if gpu.uuid in {uuids.get(name) for name in instance.gpus} and (share := _share(look.host, instance))
    }
    wanted = sum(shares.values()) * gpu.memory_mib
    free = gpu.memory_mib - taken
    stop = f"see with nvidia-smi what it is and stop it ({_stop(others, look.state)})"
    if not shares or wanted <= free:
        left = f"; {free / 1024:.1f} GiB of {gpu.memory_mib / 1024:.1f} are left" if taken else ""
        yield Reason(
            f"on GPU {gpu.index} computes something that is not described: {who}{left}", stop, "gpu-processes", "warn"
        )
        return
    # One that runs already has what it asked for, and is looked at again only when it starts anew.
    containers = look.state.containers
    starting = [name for name in shares if not (name in containers and containers[name].running)]
    fits = int(100 * free / gpu.memory_mib / len(shares)) / 100
    arguments = {engine_of(one.engine).share_argument for _, one in look.host.instances() if one.name in shares}
    lower = f", or lower {' and '.join(sorted(arguments))} to {fits:g}" + (" for each" if len(shares) > 1 else "")
    yield Reason(
        f"on GPU {gpu.index} computes something that is not described: {who}. {free / 1024:.1f} GiB are left, "
        f"{' and '.join(shares)} ask for {wanted / 1024:.1f}: they do not start when less is free",
        stop + lower,
        "gpu-processes",
        "refuse" if starting else "warn",
    )


def _share(host: Host, instance: Instance) -> float:
    """What part of a card an instance wants free when it starts; 0 for what does not ask."""
    return engine_of(instance.engine).share(instance.arguments) if host.profile_of(instance).uses_cards else 0.0


def _words(process: GpuProcess, state: HostState) -> str:
    container = container_of(process, state)
    where = f"container {container.name}" if container else f"process {process.pid}"
    used = "an unknown amount of memory" if process.used_mib is None else f"{process.used_mib / 1024:.1f} GiB"
    return f"{process.name} ({where}, {used})"


def _stop(others: list[GpuProcess], state: HostState) -> str:
    found = [(process, container_of(process, state)) for process in others]
    return ", ".join(
        dict.fromkeys(f"docker stop {one.name}" if one else f"kill {process.pid}" for process, one in found)
    )

"""A host's status from what was found there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stoker.doctor.live import moment
from stoker.facts import identity
from stoker.facts.docker_time import fixed
from stoker.facts.gpus import Gpu
from stoker.facts.state import Container, HostState
from stoker.models.card import Cards
from stoker.plan.memory.card import OVERHEAD
from stoker.plan.memory_plan import InstancePlan, plan_host
from stoker.ready.death import death_diagnosis
from stoker.ready.diagnosis import Diagnosis
from stoker.ready.engines import engine_progress
from stoker.ready.probe import Container as ReadyContainer
from stoker.ready.stamp import is_proven
from stoker.render.compose import services
from stoker.render.gateway import config_identity
from stoker.smoke.target import base_url, gateway_url
from stoker.spec.fleet import Fleet, Host
from stoker.spec.instance import Instance
from stoker.spec.stack import Stack
from stoker.status.data import (
    Card,
    ContainerStatus,
    GatewayStatus,
    GatewayView,
    Health,
    HostStatus,
    InstanceStatus,
)
from stoker.status.live import Said
from stoker.status.metrics import load
from stoker.steps import gateway as gateway_steps
from stoker.steps.layout import READY
from stoker.steps.stack import backends, container_reason, member_name, uuids

_MIB = 1 << 20

#: Of a process that was told to stop (docker stop) or ended by itself; its log names no cause.
_TOLD_TO_STOP = (0, 137, 143)


def judge(
    fleet: Fleet,
    host: Host,
    state: HostState,
    said: Said | None = None,
    cards: Cards | None = None,
    simulated: str = "",
) -> HostStatus:
    """Everything that one host can say. What gateways elsewhere say of its instances is added by `combined`."""
    said = said or Said()
    plans = {one.name: one for one in plan_host(host, cards, state).instances} if cards else {}
    reasons = _reasons(host, state)
    return HostStatus(
        host.name,
        system=state.os_name,
        driver=state.driver or (state.gpu_error if host.gpus else ""),
        docker=state.docker_version or state.docker_error or "not installed",
        simulated=simulated,
        cards=tuple(map(_card, state.gpus)),
        instances=[
            _instance(host, instance, state, said, plans.get(instance.name), reasons.get(instance.name, ""))
            for _, instance in host.instances()
        ],
        gateways=[
            _gateway(fleet, host, stack, state, said, reasons) for stack in host.stacks if stack.gateway is not None
        ],
    )


def unknown(fleet: Fleet, host: Host, error: str) -> HostStatus:
    """The status of a host that could not be asked: what is described, and why nothing is known about it."""
    described = judge(fleet, host, HostState())
    nothing = ContainerStatus("unknown")
    return HostStatus(
        host.name,
        error=error,
        instances=[replace(entry, container=nothing, health="unknown", drift="") for entry in described.instances],
        gateways=[replace(entry, container=nothing, health="unknown", drift="") for entry in described.gateways],
    )


def combined(fleet: Fleet, hosts: list[HostStatus]) -> list[HostStatus]:
    """Every instance with the view of all gateways that were asked, wherever they are."""
    views: dict[str, list[GatewayView]] = {}
    for host in hosts:
        for gateway in host.gateways:
            for member, view in gateway.views:
                views.setdefault(member, []).append(view)

    def seen(host: HostStatus, one: InstanceStatus) -> InstanceStatus:
        described = fleet.host(host.host)
        instance = next(instance for _, instance in described.instances() if instance.name == one.name)
        return replace(one, gateways=tuple(views.get(member_name(fleet, described, instance), ())))

    return [replace(host, instances=[seen(host, one) for one in host.instances]) for host in hosts]


def _reasons(host: Host, state: HostState) -> Mapping[str, str]:
    """Container -> why a deploy would touch it. Nothing where a card is not there: the preflight says that."""
    try:
        names = uuids(state)
        return {
            service.container: reason
            for stack in host.stacks
            for service in services(host, stack, names)
            if (reason := container_reason(service, state))
        }
    except KeyError:
        return {}


def _instance(
    host: Host, instance: Instance, state: HostState, said: Said, plan: InstancePlan | None, drift: str
) -> InstanceStatus:
    container = state.containers.get(instance.name)
    log = said.logs.get(instance.name, "")
    health = _health(container, state, instance.name)
    of_it = identity.chosen(state, instance.gpus) if host.profile_of(instance).uses_cards else []
    found = InstanceStatus(
        instance.name,
        instance.engine,
        instance.gpus,
        base_url(host.address, instance.port),
        instance.model,
        (container.image if container else "") or host.image_of(instance),
        health,
        _container(container, state, said),
        used_mib=_used(container, state) if of_it else None,
        predicted_mib=_predicted(plan),
        cards=tuple(map(_card, of_it)),
        load=load(said.samples.get(instance.name, [])),
        drift=drift,
    )
    if container is None or health not in ("silent", "down"):
        return found
    progress = engine_progress(instance.engine, _of_start(log, container.started_at)) if container.running else None
    cause = why(instance.engine, container, said)
    return replace(
        found,
        phase=progress.text if progress else "",
        cause=cause.brief if cause else "",
        remedy=cause.remedy if cause else "",
    )


def why(engine: str, container: Container, said: Said) -> Diagnosis | None:
    """Why an engine is down, or why the start before this one ended. None: nothing tells, or it was told to stop."""
    end, log = said.ends.get(container.name), said.logs.get(container.name, "")
    code = end.exit_code if end and not container.running else None
    if container.running:
        if not container.restarts:
            return None
        log = _before_start(log, container.started_at)
    elif container.status == "exited" and code in _TOLD_TO_STOP and not (end and (end.out_of_memory or end.error)):
        return None
    else:
        log = _without_times(log)
    ended = ReadyContainer(
        id=container.id,
        status=container.status,
        exit_code=code or 0,
        restarts=container.restarts,
        started_at=container.started_at,
        out_of_memory=bool(end and end.out_of_memory),
        error=end.error if end else "",
    )
    return death_diagnosis(engine, ended, code, log)


def _health(container: Container | None, state: HostState, name: str) -> Health:
    if container is None or not container.running:
        return "down"
    if state.answers.get(name) != "200":
        return "silent"
    stamp = state.contents.get(f"{READY}/{name}", "")
    return "ready" if is_proven(container.id, container.started_at, stamp) else "unproven"


def _gateway(
    fleet: Fleet, host: Host, stack: Stack, state: HostState, said: Said, reasons: Mapping[str, str]
) -> GatewayStatus:
    gateway = stack.gateway
    probe = gateway_steps.probe(stack)
    assert gateway is not None
    assert probe is not None
    container = state.containers.get(gateway.container)
    health: Health = "down"
    if container is not None and container.running:
        answer = state.answers.get(probe.name, "")
        wanted = config_identity(gateway, backends(fleet, gateway))
        health = "ready" if answer == wanted else "stale" if answer else "silent"
    return GatewayStatus(
        gateway.container,
        gateway_url(host, gateway),
        tuple(pool.model for pool in gateway.pools),
        (container.image if container else "") or host.gateway_image,
        health,
        _container(container, state, said),
        drift=reasons.get(gateway.container, ""),
        views=said.members.get(gateway.container, ()),
    )


def _container(container: Container | None, state: HostState, said: Said) -> ContainerStatus:
    if container is None:
        return ContainerStatus()
    end = said.ends.get(container.name)
    since = container.started_at if container.running or end is None else end.finished_at
    at = moment(since)
    return ContainerStatus(
        container.status,
        fixed(since) if at is not None else "",
        None if at is None else max(0.0, state.time - at),
        container.restarts,
        end.exit_code if end and not container.running else None,
    )


def _card(gpu: Gpu) -> Card:
    return Card(gpu.index, gpu.uuid, gpu.used_mib, gpu.memory_mib)


def _used(container: Container | None, state: HostState) -> int | None:
    """Memory of the container's own processes on the cards. None where nvidia-smi does not tell whose it is."""
    if container is None:
        return None
    mine = [one.used_mib for one in state.gpu_processes if state.gpu_containers.get(one.pid) == container.id]
    return sum(one for one in mine if one is not None) if any(one is not None for one in mine) else None


def _predicted(plan: InstancePlan | None) -> int | None:
    """On all its cards, the CUDA context included."""
    if plan is None:
        return None
    if plan.fixed:
        return round(plan.fixed.bytes / _MIB)
    if plan.prediction:
        one = plan.prediction
        return round((one.claim + OVERHEAD) * one.instance.cards / _MIB)
    return None


def _of_start(log: str, started_at: str) -> str:
    return "\n".join(text for at, text in _timed(log) if at >= fixed(started_at))


def _before_start(log: str, started_at: str) -> str:
    return "\n".join(text for at, text in _timed(log) if at < fixed(started_at))


def _without_times(log: str) -> str:
    return "\n".join(text for _, text in _timed(log))


def _timed(log: str) -> list[tuple[str, str]]:
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in log.splitlines()]

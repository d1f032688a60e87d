"""A stack's files and its containers."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from stoker.facts import identity
from stoker.facts.state import HostState
from stoker.plan import embeddings
from stoker.ready.load_record import LOADS, read_record
from stoker.render import gateway_external
from stoker.render.compose import Service, compose_file, external_volumes, services, stack_directory
from stoker.render.gateway import CONFIG_DIRECTORY, Backend, Member, render_gateway
from stoker.render.gateway_protection import tls_volume
from stoker.spec.fleet import Fleet, Host, at
from stoker.spec.gateway import Gateway
from stoker.spec.gpu_name import GpuName
from stoker.spec.instance import Instance
from stoker.spec.settings import FilesModel
from stoker.spec.stack import Stack
from stoker.steps import service_keys
from stoker.steps.action import Action, File, write_files


def uuids(state: HostState) -> dict[GpuName, str]:
    """Every name of a card of this host -> its UUID."""
    return {name: gpu.uuid for name, gpu in identity.by_name(state).items()}


def backends(fleet: Fleet, gateway: Gateway) -> list[Backend]:
    """The members of each pool: every instance of the fleet that serves its model, by address and published port; or its service."""
    found = []
    for pool in gateway.pools:
        if pool.external:
            found.append(gateway_external.backend(pool, pool.external))
            continue
        members = fleet.members(pool.model, pool.hosts)
        model = members[0][0].model_of(members[0][1])
        found.append(
            Backend(
                pool=pool,
                engine=members[0][1].engine,
                members=tuple(
                    Member(member_name(fleet, host, instance), at(host.address, instance.port))
                    for host, instance in members
                ),
                aliases=model.aliases if isinstance(model, FilesModel) else (),
            )
        )
    return found


def member_name(fleet: Fleet, host: Host, instance: Instance) -> str:
    """How gateways call an instance: its name, with the host's where another host has one of the same name."""
    namesakes = sum(1 for other in fleet.hosts for _, one in other.instances() if one.name == instance.name)
    return instance.name if namesakes == 1 else f"{instance.name}@{host.name}"


def gateway_files(fleet: Fleet, host: Host, stack: Stack) -> list[File]:
    if stack.gateway is None:
        return []
    directory = f"{stack_directory(host, stack)}/gateway"
    rendered = render_gateway(stack.gateway, backends(fleet, stack.gateway))
    return [File(f"{directory}/{name}", text) for name, text in sorted(rendered.items())]


def paths(fleet: Fleet, host: Host, stack: Stack) -> list[str]:
    """Files whose state the steps must see."""
    tls = stack.gateway.tls if stack.gateway else None
    return [
        compose_path(host, stack),
        embeddings_note(host, stack),
        *(file.path for file in gateway_files(fleet, host, stack)),
        *([tls.certificate_file, tls.key_file] if tls else []),
        *(service_keys.read_by(stack.gateway) if stack.gateway else []),
    ]


def embeddings_note(host: Host, stack: Stack) -> str:
    return f"{stack_directory(host, stack)}/{embeddings.NOTE}"


def notes(host: Host, stack: Stack) -> list[File]:
    """What the next deploy has to know of this one."""
    vectors = embeddings.described(host, stack)
    return [File(embeddings_note(host, stack), embeddings.note(vectors))] if vectors else []


def note_actions(host: Host, stack: Stack, state: HostState) -> list[Action]:
    """Note what was deployed, once its containers are made."""
    stale = [file for file in notes(host, stack) if not file.is_on(state)]
    if not stale:
        return []
    script, stdin = write_files(stale, stack_directory(host, stack))
    return [Action(f"write {', '.join(file.path for file in stale)}", script, stdin)]


def compose_path(host: Host, stack: Stack) -> str:
    return f"{stack_directory(host, stack)}/{stack.compose_file}"


def file_actions(fleet: Fleet, host: Host, stack: Stack, state: HostState) -> list[Action]:
    """Write what differs, after Compose and nginx have read the new set and found it right."""
    compose = File(compose_path(host, stack), compose_file(host, stack, uuids(state)))
    gateway = gateway_files(fleet, host, stack)
    stale = [file for file in [compose, *gateway] if not file.is_on(state)]
    if not stale:
        return []
    checks = []
    if compose in stale:
        checks.append(f'docker compose -f "$new"/{stack.compose_file} config -q')
    stale_gateway = [file for file in gateway if file in stale]
    if stale_gateway and stack.gateway:
        stale = [file for file in stale if file not in gateway] + gateway  # nginx needs the whole set to judge it
        seen = [*([tls_volume(stack.gateway.tls)] if stack.gateway.tls else []), *external_volumes(stack.gateway)]
        volumes = "".join(f"--volume {volume} " for volume in seen)
        checks.append(
            f'chmod 755 "$new" "$new"/gateway; docker run --rm {volumes}--volume "$new"/gateway:{CONFIG_DIRECTORY}:ro '
            f"{shlex.quote(host.gateway_image)} nginx -t -q -c {CONFIG_DIRECTORY}/{stack.gateway.config_file}"
        )
    script, stdin = write_files(stale, stack_directory(host, stack), check="\n".join(checks))
    return [Action(f"write {', '.join(file.path for file in stale)}", script, stdin)]


def container_actions(host: Host, stack: Stack, state: HostState, only: Collection[str] = ()) -> list[Action]:
    """Compare what runs with what is wanted; touch only the services that differ.

    Compose's own ``up`` is always run in full by pyinfra's operation and reported as a change; here it is asked for the
    services that need it and for no others.
    """
    reasons: dict[str, str] = {}
    interrupted = []
    for service in services(host, stack, uuids(state)):
        if only and service.container not in only:
            continue
        reason = container_reason(service, state)
        if reason:
            reasons[service.name] = f"{service.container}: {reason}"
            container = state.containers.get(service.container)
            if container is not None and container.running:
                interrupted.append(f"{service.container}{_last_load(service.container, state)}")
    orphans = [] if only else _orphans(stack, state)
    found = []
    if orphans:
        found.append(
            Action(
                f"remove containers that are no longer described: {', '.join(orphans)}",
                f"docker rm -f {' '.join(map(shlex.quote, orphans))}",
                interrupts=", ".join(orphans),
            )
        )
    if reasons:
        found.append(
            Action(
                "; ".join(reasons.values()),
                f"{_up(host, stack, reasons, state)}{_unpause(reasons, stack, state)}{_gateway_answers(reasons, stack)}",
                interrupts=", ".join(interrupted),
            )
        )
    return found


def _last_load(name: str, state: HostState) -> str:
    """How long it will be away, as far as its last start tells."""
    record = read_record(state.contents.get(f"{LOADS}/{name}", ""))
    return f" (its last start took {record.total:.0f} s)" if record else ""


#: What Docker, containerd and runc say of a stopped container of whose last run a process is left: it can never be started again.
_LEFT_BEHIND = ("cgroup is not empty", "unable to remove container's cgroup")


def _up(host: Host, stack: Stack, reasons: Collection[str], state: HostState) -> str:
    """Shell: bring the services up."""
    compose = f"docker compose --ansi never --progress quiet -f {shlex.quote(compose_path(host, stack))}"
    why = {
        service.name: container_reason(service, state)
        for service in services(host, stack, uuids(state))
        if service.name in reasons
    }
    failing = [name for name, reason in why.items() if reason == _START_ANEW]
    others = [name for name in why if name not in failing]
    stopped = [name for name in others if why[name].startswith(_START)]
    parts = [f"{compose} restart --no-deps {' '.join(map(shlex.quote, failing))}"] if failing else []
    parts += [_up_or_anew(f"{compose} up -d --no-deps --pull never", others, stopped)] if others else []
    return " && ".join(parts)


def _up_or_anew(up: str, names: Collection[str], stopped: Collection[str]) -> str:
    """Those that only have to be started (``stopped``) are made anew when something of their last run is in the way."""
    command = f"{up} {' '.join(map(shlex.quote, names))}"
    if not stopped:
        return command
    cases = "|".join(f'*"{words}"*' for words in _LEFT_BEHIND)
    anew = f"{up} --force-recreate {' '.join(map(shlex.quote, stopped))} && {command}"
    return (
        f'{{ said=$({command} 2>&1); up=$?; test -z "$said" || printf \'%s\\n\' "$said"; '
        f'case "$said" in {cases}) echo "made anew, because of what is left of the last run"; {anew};; *) (exit $up);; esac; }}'
    )


def _unpause(reasons: Collection[str], stack: Stack, state: HostState) -> str:
    """Compose does not wake a paused container."""
    paused = [
        instance.name
        for instance in stack.instances
        if instance.service_name in reasons
        and instance.name in state.containers
        and state.containers[instance.name].status == "paused"
    ]
    return "".join(f" && {{ docker unpause {shlex.quote(name)} 2>/dev/null || true; }}" for name in paused)


def _gateway_answers(reasons: Collection[str], stack: Stack) -> str:
    """Wait until a gateway that was made answers, so that what it has loaded can be asked. At most 10 s; the next chapter judges."""
    if stack.gateway is None or stack.gateway.service not in reasons:
        return ""
    return (
        f"; up=$?; i=0; until curl -q -s -k --noproxy '*' -m 2 -o /dev/null {stack.gateway.health_url}; do i=$((i+1)); "
        "test $i -lt 40 || break; sleep 0.25; done; exit $up"
    )


def forgotten(host: Host, state: HostState) -> list[Action]:
    """Containers of Stoker's whose whole project is no longer described on this host."""
    projects = {stack.project for stack in host.stacks}
    names = sorted(
        container.name
        for container in state.containers.values()
        if container.configuration and container.project not in projects
    )
    if not names:
        return []
    return [
        Action(
            f"remove containers of projects that are no longer described: {', '.join(names)}",
            f"docker rm -f {' '.join(map(shlex.quote, names))}",
            interrupts=", ".join(names),
        )
    ]


_START = "start, it is"
#: What it ended for may have been put right by now, and Docker waits longer and longer before each try.
_START_ANEW = "start anew, it ends again and again"


def container_reason(service: Service, state: HostState) -> str:
    """Why a container has to be touched; empty when it is as described."""
    container = state.containers.get(service.container)
    if container is None:
        return "create"
    if not container.configuration:
        return "create in place of what was made by hand"
    if container.configuration != service.configuration:
        return "recreate, its description changed"
    image = state.images.get(service.image)
    if image and container.image_id != image:
        return f"recreate, {service.image} is another image now"
    if container.status == "restarting":
        return _START_ANEW
    return "" if container.status == "running" else f"{_START} {container.status}"


def _orphans(stack: Stack, state: HostState) -> list[str]:
    """Stoker's own; what somebody else started under the project's name is not Stoker's to remove."""
    return sorted(
        container.name
        for container in state.containers.values()
        if container.configuration and container.project == stack.project and container.name not in stack.containers
    )

"""States of hosts as values: bare, and converged by everything that the steps ask for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stoker.facts import identity
from stoker.facts.gpus import Gpu
from stoker.facts.state import SECTION, Container, FileState, HostState
from stoker.ready.stamp import stamp_text
from stoker.render.compose import compose_file, services
from stoker.render.firewall import rules, unit
from stoker.render.gateway import config_identity
from stoker.spec.fleet import Fleet, Host
from stoker.steps import (
    acme,
    base,
    build,
    docker,
    driver,
    driver_hold,
    firewall,
    gateway,
    images,
    layout,
    models,
    ollama,
    sources,
    stack,
    toolkit,
)
from stoker.steps.action import Action, File
from support.fleet import Data, make_fleet

#: An armored key and its fingerprint as gpg 2.2.40 prints it. Made for these tests; nothing is signed with it.
KEY = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawEQohYJKwYBBAHaRw8BAQdAVwIQVdrlkLG6jeZZN1Q3WlqHK6vTmkCCOb+a
EHvySjO0G1Rlc3Qga2V5IDx0ZXN0QGV4YW1wbGUub3JnPoiQBBMWCAA4FiEEEpaY
e+892kyVOnY+4mhhwf7IV+YFAmsBEKICGwMFCwkIBwIGFQoJCAsCBBYCAwECHgEC
F4AACgkQ4mhhwf7IV+aIjgD/btxfcz7getNOFttseMtwyV4GuNBIuMHvqiXm+wY3
qjAA/Rilgsr4VrZg+XoGVfiOXx+Tnu4XP3Zbm7UzPbrGxuID
=dsee
-----END PGP PUBLIC KEY BLOCK-----
"""
FINGERPRINT = "1296987BEF3DDA4C953A763EE26861C1FEC857E6"

NOW = 1_795_000_000
DRIVER = "580.173.02"
DRIVER_PACKAGES = ("libcuda1", "nvidia-driver-cuda", "nvidia-kernel-dkms")
_CARDS = {"V100": ("Tesla V100-SXM2-32GB", 32768, "7.0"), "P40": ("Tesla P40", 23040, "6.1")}


def signed_by_the_test_key(data: Data) -> None:
    """Edit group data so that repositories are signed with the key above."""
    data["all"]["mirrors"] = {"docker_key": FINGERPRINT, "container_toolkit_key": FINGERPRINT}


def fleet_and_host(group: str = "llm", change: Any = lambda data: None) -> tuple[Fleet, Host]:
    """The default fleet with repositories signed by the test key, and the host of one group."""

    def both(data: Data) -> None:
        signed_by_the_test_key(data)
        change(data)

    fleet = make_fleet(both)
    return fleet, fleet.hosts[("llm", "embedding").index(group)]


def cards(host: Host) -> tuple[Gpu, ...]:
    if host.gpus is None:
        return ()
    name, memory, capability = _CARDS[host.gpus.card]
    return tuple(
        Gpu(
            index,
            f"GPU-{index:08x}-5b8e-47c1-9d2a-{index:012x}",
            name,
            memory,
            capability,
            f"0000:{26 + index:02x}:00.0",
            0,
            True,
        )
        for index in range(host.gpus.count)
    )


def bare(host: Host) -> HostState:
    """Debian 13 with a driver and nothing else, as the probe finds it by root."""
    return HostState(
        os_id="debian",
        os_codename="trixie",
        os_name="Debian GNU/Linux 13 (trixie)",
        architecture="x86_64",
        uid=0,
        user="root",
        time=NOW,
        units={"nvidia-persistenced.service": "active enabled"},
        packages=dict.fromkeys(DRIVER_PACKAGES, f"{DRIVER}-1"),
        driver=DRIVER,
        gpus=cards(host),
        kernel_module="proprietary",
        free_bytes={"/var/lib": 500 << 30, **{entry.model_directory: 500 << 30 for entry in host.stacks}},
        file_systems={"/var/lib": "/dev/sda1", **{entry.model_directory: "/dev/sdb1" for entry in host.stacks}},
    )


def file_state(file: File) -> FileState:
    return FileState("regular file", file.mode, "root", "root", hashlib.sha256(file.text.encode()).hexdigest())


def converged(fleet: Fleet, host: Host) -> HostState:
    """The same host after a deploy: nothing is left to do."""
    state = bare(host)
    ids = {image: f"sha256:{hashlib.sha256(image.encode()).hexdigest()}" for image in host.images()}
    state = replace(
        state,
        packages={**state.packages, **_packages(host, state)},
        held=frozenset(DRIVER_PACKAGES),
        units={"docker.service": "active enabled", "nvidia-persistenced.service": "active enabled"},
        docker_version="28.5.2",
        images=ids,
        contexts={image: build.identity(image) for image in build.own_images(host)},
    )
    files = [repository.sources_file("amd64") for repository in sources.repositories(host, state)]
    files += [*toolkit._DROP_INS, *layout.tools(host), driver_hold.pin_file(host, state)]
    record = layout.record(host, state)
    files += [record] if record else []
    if host.settings.firewall == "engines":
        files += [File(firewall.FIREWALL_RULES, rules(fleet, host), "600"), File(firewall.UNIT_FILE, unit())]
        state = replace(state, firewall="as written", units={**state.units, firewall.UNIT: "active enabled"})
    for entry in host.stacks:
        text = compose_file(host, entry, stack.uuids(state))
        files += [
            File(stack.compose_path(host, entry), text),
            *stack.notes(host, entry),
            *stack.gateway_files(fleet, host, entry),
        ]
    found = {file.path: file_state(file) for file in files}
    for path, mode in layout.directories(host).items():
        found[path] = FileState("directory", mode, "root", "root")
    for path in [*layout.lock_files(host, state), *ollama.files(host)]:
        found[path] = FileState("regular file", "644", "root", "root", "ab" * 32)
    state = replace(state, files=found, containers=_containers(host, ids, state))
    return replace(
        state, contents=_contents(host, state), model_files=_model_files(host), answers=_answers(fleet, host)
    )


def _packages(host: Host, state: HostState) -> dict[str, str]:
    wanted = [*base.packages(host), *docker.packages(host, state), *toolkit.packages(host)]
    suffix = {"5:28.5.2": "-1~debian.13~trixie", "2.40.3": "-1~debian.13~trixie"}
    return {package.name: (package.version or "1.0") + suffix.get(package.version, "") for package in wanted}


def _containers(host: Host, ids: Mapping[str, str], state: HostState) -> dict[str, Container]:
    return {
        service.container: Container(
            name=service.container,
            id=hashlib.sha256(service.container.encode()).hexdigest(),
            image_id=ids[service.image],
            status="running",
            started_at="2026-11-20T10:00:00.000000001Z",
            restarts=0,
            configuration=service.configuration,
            project=entry.project,
        )
        for entry in host.stacks
        for service in services(host, entry, stack.uuids(state))
    }


def _contents(host: Host, state: HostState) -> dict[str, str]:
    contents = dict.fromkeys(sources.contents(), KEY)
    record = layout.record(host, state)
    contents[identity.RECORD] = record.text if record else ""
    contents[docker.DAEMON_JSON] = docker.merged("", docker.daemon_settings(host)) or ""
    contents[toolkit.CDI] = "\n".join(["  - path: /dev/nvidia-uvm", *(f"  - name: {gpu.uuid}" for gpu in state.gpus)])
    for directory, (model, _) in models.wanted(host).items():
        contents[f"{directory}/{models.MANIFEST}"] = manifest(model.repository)
    for entry in ollama.served(host):
        contents[entry.record] = f"{state.files[entry.manifest].digest} {entry.recipe}\n"
    for image, (engine, _) in images.proofs(host).items():
        uuids = " ".join(gpu.uuid for gpu in state.gpus)
        contents[images.proof_path(engine, image)] = f"{state.images[image]} {state.driver} {uuids}\n"
    for name, container in state.containers.items():
        contents[f"{layout.READY}/{name}"] = stamp_text(container.id, container.started_at) + "\n"
    return contents


def manifest(repository: str, revision: str = "main") -> str:
    """As templates/fetch-model.py writes it."""
    files = {"config.json": {"size": 1000}, "model.safetensors": {"size": 5_000_000}}
    return json.dumps({"repository": repository, "revision": revision, "checked": "checksums", "files": files})


def _model_files(host: Host) -> dict[str, dict[str, int]]:
    return {directory: {"config.json": 1000, "model.safetensors": 5_000_000} for directory in models.wanted(host)}


def _answers(fleet: Fleet, host: Host) -> dict[str, str]:
    answers = {instance.name: "200" for _, instance in host.instances()}
    for entry in host.stacks:
        probe = gateway.probe(entry)
        if probe and entry.gateway:
            backends = stack.backends(fleet, entry.gateway)
            answers[probe.name] = config_identity(entry.gateway, backends)
    return answers


def steps(fleet: Fleet, host: Host, state: HostState, only: tuple[str, ...] = ()) -> dict[str, list[Action]]:
    """What each chapter of deploy.py finds missing, in its order; chapters that find nothing are left out."""
    chapters = {
        "sources": sources.actions(host, state),
        "base": base.actions(host, state),
        "docker": docker.actions(host, state),
        "driver": driver.actions(host, state),
        "toolkit": toolkit.actions(host, state),
        "layout": layout.actions(host, state),
        "images": images.actions(host, state),
        "probes": images.probes(host, state),
        "models": models.actions(host, state, None),
        "firewall": [] if only else firewall.actions(fleet, host, state),
        "placeholders": [action for entry in host.stacks for action in acme.placeholders(entry, state)],
        "files": [action for entry in host.stacks for action in stack.file_actions(fleet, host, entry, state)],
        "containers": [
            *([] if only else stack.forgotten(host, state)),
            *(action for entry in host.stacks for action in stack.container_actions(host, entry, state, only)),
        ],
        "ollama": ollama.actions(host, state),
        "gateway": [action for entry in host.stacks for action in gateway.actions(fleet, host, entry, state)],
        "certificates": [action for entry in host.stacks for action in acme.issue(host, entry, state)],
    }
    return {name: actions for name, actions in chapters.items() if actions}


def probe_output(state: HostState) -> str:
    """What the probe prints on a host in this state; `parse` reads the state from it again."""
    sections: dict[str, list[str]] = {
        "os": [f'PRETTY_NAME="{state.os_name}"', f"VERSION_CODENAME={state.os_codename}", f"ID={state.os_id}"],
        "identity": [f"{state.architecture} {state.uid} {state.user} {state.time}"],
        "packages": [
            f"{name}\t{version}\t{'hi' if name in state.held else 'ii'} " for name, version in state.packages.items()
        ],
        "files": [f"{f.kind}\t{f.mode}\t{f.owner}\t{f.group}\t{path}" for path, f in state.files.items()],
        "digests": [f"{file.digest}  {path}" for path, file in state.files.items() if file.digest],
        **{f"content {path}": text.split("\n") for path, text in state.contents.items()},
        "units": [f"{unit}\t{words}" for unit, words in state.units.items()],
        "gpus": [*(smi_row(gpu, state.driver) for gpu in state.gpus), "rc=0"]
        if state.gpus
        else [state.gpu_error, "rc=9"],
        "gpu-processes": [
            f"{one.gpu_uuid}, {one.pid}, {one.name}, {_cell(one.used_mib)}" for one in state.gpu_processes
        ],
        "kernel-module": _KERNEL_MODULE[state.kernel_module],
        "memory": [str(state.memory_kib)],
        "listeners": [
            f'LISTEN 0 128 0.0.0.0:{one.port} 0.0.0.0:* users:(("{one.process}"))' for one in state.listeners
        ],
        "disk": [f"{path}\t{free}\t{state.file_systems[path]}" for path, free in state.free_bytes.items()],
        "models": [f"{d}\t{path}\t{size}" for d, found in state.model_files.items() for path, size in found.items()],
    }
    if state.docker_version:
        sections |= {
            "docker": [state.docker_version],
            "containers": [_inspected(container) for container in state.containers.values()],
            "images": [f"{reference}\t{identity}" for reference, identity in state.images.items()],
            "contexts": [f"{reference}\t{context}" for reference, context in state.contexts.items()],
        }
    sections["firewall"], sections["bridges"] = [state.firewall], list(state.bridges)
    sections["answers"] = [f"{name}\t{text}" for name, text in state.answers.items()]
    return "".join(f"{SECTION}{name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in sections.items())


def smi_row(gpu: Gpu, driver: str) -> str:
    """A card as the first of the probe's queries prints it."""
    return (
        f"{gpu.index}, {gpu.uuid}, {gpu.name}, {gpu.memory_mib}, {gpu.compute_capability}, {driver}, "
        f"0000{gpu.bus_id.upper()}, {_cell(gpu.used_mib)}, {_SWITCH[gpu.ecc]}, {_SWITCH[gpu.mig]}"
    )


_SWITCH = {True: "Enabled", False: "Disabled", None: "[N/A]"}
_KERNEL_MODULE = {"": [], "open": ["Dual MIT/GPL"], "proprietary": ["NVIDIA"]}


def _cell(value: int | None) -> str:
    return "[N/A]" if value is None else str(value)


def _inspected(container: Container) -> str:
    labels = {
        "stoker.configuration": container.configuration,
        "com.docker.compose.project": container.project,
        "com.docker.compose.project.config_files": ",".join(container.config_files),
    }
    return json.dumps(
        {
            "name": f"/{container.name}",
            "id": container.id,
            "image": container.image_id,
            "status": container.status,
            "started": container.started_at,
            "restarts": container.restarts,
            "labels": labels,
            "ports": {"1/tcp": [{"HostIp": "", "HostPort": str(port)} for port in container.ports]},
            "reference": container.image,
            "command": list(container.command),
            "restart": container.restart,
            "mounts": [{"Source": source, "Destination": inside} for source, inside in container.mounts],
            "runtime": "runc",
            "devices": [{"Driver": "nvidia", "Count": 0, "DeviceIDs": list(container.gpus)}]
            if container.gpus
            else None,
            "visible": [""],
        }
    )

"""Directories and helper programs on the host."""

from __future__ import annotations

import shlex

from stoker.facts import identity
from stoker.facts.paths import HOST_CACHE, HOST_GATEWAYS, HOST_LOCKS, HOST_STATE
from stoker.facts.state import HostState
from stoker.render.compose import gpu_turn
from stoker.render.environment import TEMPLATES
from stoker.spec.fleet import Host
from stoker.spec.gpu_name import GpuName
from stoker.steps import acme
from stoker.steps.action import Action, File, write_files

SECRETS = "/etc/stoker"
READY = f"{HOST_STATE}/ready"
PROBES = f"{HOST_STATE}/probe"
MODELS = f"{HOST_STATE}/models"


def directories(host: Host) -> dict[str, str]:
    """Path -> mode of every directory that Stoker makes."""
    wanted = dict.fromkeys(
        (
            host.settings.stack_root,
            HOST_STATE,
            HOST_LOCKS,
            HOST_CACHE,
            READY,
            PROBES,
            MODELS,
        ),
        "755",
    )
    wanted |= {stack.model_directory: "755" for stack in host.stacks if stack.model_directory}
    wanted |= {f"{HOST_GATEWAYS}/{stack.gateway.container}": "755" for stack in host.stacks if stack.gateway}
    wanted[SECRETS] = "700"
    return wanted


def tools(host: Host) -> list[File]:
    """Programs that run in the host's containers, readable and not writable there, and one for certbot."""
    root = f"{host.settings.stack_root}/bin"
    fetch = (TEMPLATES / "fetch-model.py").read_text(encoding="utf-8")
    return [
        File(f"{root}/gpu-turn.py", gpu_turn(), "755"),
        File(f"{root}/fetch-model.py", fetch, "755"),
        *acme.tools(host),
    ]


def lock_files(host: Host, state: HostState) -> list[str]:
    return [f"{HOST_LOCKS}/{gpu.uuid}.lock" for gpu in identity.chosen(state, _used(host))]


def _used(host: Host) -> set[GpuName]:
    return {name for _, instance in host.instances() for name in instance.gpus}


def record(host: Host, state: HostState) -> File | None:
    """Which card each index of the description means: as noted before, else as nvidia-smi counts now. None without indices."""
    indices = sorted(name for name in _used(host) if isinstance(name, int))
    cards = identity.by_name(state)
    lines = [f"{index} {cards[index].uuid}\n" for index in indices if index in cards]
    return File(identity.RECORD, "".join(lines)) if lines else None


def actions(host: Host, state: HostState) -> list[Action]:
    found = []
    lacking = {path: mode for path, mode in directories(host).items() if not _is_directory(state, path, mode)}
    if lacking:
        lines = [f"mkdir -p {shlex.quote(path)} && chmod {mode} {shlex.quote(path)}" for path, mode in lacking.items()]
        found.append(Action(f"make {len(lacking)} directories: {', '.join(lacking)}", " && ".join(lines)))
    stale = [file for file in tools(host) if not file.is_on(state)]
    if stale:
        script, stdin = write_files(stale, f"{host.settings.stack_root}/bin")
        found.append(Action(f"write {', '.join(file.path for file in stale)}", script, stdin))
    record_file = record(host, state)
    if record_file and not record_file.is_on(state):
        script, stdin = write_files([record_file], HOST_STATE)
        found.append(Action(f"note in {record_file.path} which card each index means", script, stdin))
    locks = [path for path in lock_files(host, state) if path not in state.files]
    if locks:
        found.append(
            Action(f"make {len(locks)} GPU lock files in {HOST_LOCKS}", f"touch {' '.join(map(shlex.quote, locks))}")
        )
    return found


def _is_directory(state: HostState, path: str, mode: str) -> bool:
    found = state.files.get(path)
    if found is None or found.kind != "directory":
        return False
    # A model directory may have been there before, with an owner and a mode of its own.
    return found.mode == mode or path != SECRETS

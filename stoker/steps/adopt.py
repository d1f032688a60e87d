"""Replacing what somebody made by hand: kept as files on the host, then out of the way.

The old container itself cannot be kept. Compose finds a container by labels, which cannot be changed: under the same project and service, as
people have them from the documents, it would remove a renamed one together with making the new. So what Docker's API would make the same
container from is kept, beside copies of the files that it came from.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stoker.facts.paths import HOST_STATE
from stoker.facts.state import Container, HostState
from stoker.plan.handmade import blockers
from stoker.render.environment import TEMPLATES
from stoker.spec.fleet import Host
from stoker.spec.stack import Stack
from stoker.steps.action import Action, File, Say, Shell, write_files

ADOPTED = f"{HOST_STATE}/adopted"
GO_BACK = "go-back.sh"
#: In a copy that is finished with: by going back wholly, or when everything was replaced.
CLOSED = "closed"

#: Of a container's end in a network, what was asked for; the rest is what Docker made of it.
_ENDPOINT = ("IPAMConfig", "Links", "Aliases", "DriverOpts")


def make_way(host: Host, stack: Stack, state: HostState, only: Collection[str], directory: str) -> list[Action]:
    """Keep in ``directory`` what stands in the way of a stack's containers, then stop and remove it."""
    names = [instance.name for instance in stack.instances] + ([stack.gateway.container] if stack.gateway else [])
    found = blockers(host, state)
    return [_replace(old, name, directory) for name in names if not only or name in only for old in found.get(name, ())]


def and_start_again(host: Host, state: HostState, actions: Sequence[Action]) -> list[Action]:
    """Actions, and when they restart Docker, one that starts what was made by hand: it may have no restart policy."""
    names = [old.name for olds in blockers(host, state).values() for old in olds if old.running]
    if not names or not any(action.interrupts for action in actions):
        return [*actions]
    return [*actions, Action(f"start {', '.join(names)} again", f"docker start {' '.join(map(shlex.quote, names))}")]


def _replace(old: Container, new: str, directory: str) -> Action:
    def run(shell: Shell, say: Say) -> str | None:
        name = shlex.quote(old.name)
        ok, lines = shell(f"docker inspect {name}")
        if not ok:
            return None  # gone since the plan was made
        inspected = json.loads("\n".join(lines))[0]
        if inspected["Id"] != old.id:
            return f"{old.name} is another container than a moment ago; run it again"
        script, stdin = keep(inspected, new, directory)
        ok, lines = shell(f"{script}\ndocker stop {name} >/dev/null\ndocker rm {name} >/dev/null", stdin=stdin)
        return None if ok else " ".join(lines) or "it could not be kept and removed"

    return Action(
        f"keep {old.name} in {directory}, stop it and remove it",
        function=run,
        interrupts=old.name if old.running else "",
    )


def keep(inspected: Mapping[str, Any], new: str, directory: str) -> tuple[str, str]:
    """Script and input that write down a container, for `go-back.sh`, and copy the files that it came from."""
    name = inspected["Name"].lstrip("/")
    state = "running" if inspected["State"]["Running"] else "stopped"
    about = f"{inspected['Image']} {inspected['Config']['Image']} {state} {new}\n"
    files = [
        File(f"{directory}/containers/{name}.json", json.dumps(recipe(inspected), indent=1) + "\n", "600"),
        File(f"{directory}/containers/{name}.about", about, "600"),
        File(f"{directory}/inspect/{name}.json", json.dumps([inspected], indent=4) + "\n", "600"),
        File(f"{directory}/{GO_BACK}", (TEMPLATES / GO_BACK).read_text(encoding="utf-8"), "700"),
    ]
    copies = " ".join(map(shlex.quote, sources(inspected)))
    after = [f"cd {shlex.quote(directory)}", "touch names"]
    after.append(f"grep -qxF {shlex.quote(name)} names || printf '%s\\n' {shlex.quote(name)} >>names")
    if copies:
        # A directory that is mounted is no file of the stack's: models may be in it.
        after.append(
            f'for f in {copies}; do test -f "$f" || continue; d=files$(dirname "$f"); mkdir -p "$d"; cp -p "$f" "$d"; done'
        )
    script, stdin = write_files(files, directory, after="\n".join(after))
    # Environments may hold secrets.
    return f"mkdir -p -m 700 {shlex.quote(directory)}\n{script}", stdin


def sources(inspected: Mapping[str, Any]) -> list[str]:
    """The Compose files of a container, and what it mounts from the host."""
    labels = inspected["Config"].get("Labels") or {}
    compose = labels.get("com.docker.compose.project.config_files", "").split(",")
    mounted = [mount["Source"] for mount in inspected.get("Mounts") or () if mount.get("Type") == "bind"]
    return [path for path in dict.fromkeys([*compose, *mounted]) if path.startswith("/")]


def recipe(inspected: Mapping[str, Any]) -> dict[str, Any]:
    """What ``POST /containers/create`` makes the same container from: `docker inspect` without what Docker added at the creation."""
    short = inspected["Id"][:12]
    config = {**inspected["Config"], "Image": inspected["Image"]}
    if config.get("Hostname") == short:
        del config["Hostname"]
    endpoints = {}
    for network, end in (inspected["NetworkSettings"].get("Networks") or {}).items():
        asked = {key: end[key] for key in _ENDPOINT if end.get(key)}
        if "Aliases" in asked:
            asked["Aliases"] = [alias for alias in asked["Aliases"] if alias != short]
        endpoints[network] = asked
    host_config = {**inspected["HostConfig"]}
    host_config["Binds"] = [*(host_config.get("Binds") or ()), *_unnamed_volumes(inspected)]
    return {**config, "HostConfig": host_config, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def _unnamed_volumes(inspected: Mapping[str, Any]) -> list[str]:
    """Volumes that the image asked for and nobody named: the new container gets the same ones again."""
    host_config = inspected["HostConfig"]
    named = {bind.split(":")[1] for bind in host_config.get("Binds") or () if ":" in bind}
    named |= {mount.get("Target") for mount in host_config.get("Mounts") or ()}
    return [
        f"{mount['Name']}:{mount['Destination']}"
        for mount in inspected.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount["Destination"] not in named
    ]

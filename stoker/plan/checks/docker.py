"""Docker: the real one, run by root, new enough, and with settings that Stoker can add to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stoker.plan.look import Look, Reason, Reasons
from stoker.steps.docker import DAEMON_JSON, daemon_settings, known_packages

#: The first release with `--gpus` (Docker Engine 19.03 release notes).
OLDEST_DOCKER = (19, 3)

#: The first Compose that takes a CDI name among a service's `devices` (docker/compose pull request 12184, merged 2024-10-08,
#: first in its tag v2.30.0); and the first that is a plugin at all.
OLDEST_COMPOSE_FOR_CDI, OLDEST_COMPOSE = (2, 30), (2, 0)


def check(look: Look) -> Reasons:
    yield from _impostors(look)
    yield from _too_old(look)
    yield from _composes(look)
    host, state = look.host, look.state
    if host.settings.docker.source == "distribution" and state.os_codename == "bookworm":
        yield Reason(
            "Debian 12's own packages hold no Compose 2", 'use docker = {"source": "docker-ce"}', "docker-source"
        )
    yield from _daemon_json(look)


def _impostors(look: Look) -> Iterator[Reason]:
    state = look.state
    if state.dockers.path.startswith("/snap"):
        yield Reason(
            "Docker is installed as a snap, which cannot use the container toolkit",
            "snap remove docker",
            "docker-from-snap",
        )
    elif state.dockers.is_podman and "podman-docker" not in state.packages:
        yield Reason(
            f"{state.dockers.path} is Podman under Docker's name; Stoker needs Docker's own daemon",
            f"rm {state.dockers.path} (Podman itself may stay), then deploy",
            "docker-is-podman",
        )
    elif state.docker_info.rootless:
        yield Reason(
            "the Docker that answers is a rootless one; Stoker needs the system's",
            "take DOCKER_HOST out of root's environment, or `docker context use default`, then deploy",
            "docker-rootless",
        )
    elif state.docker_running and not state.dockers.is_podman and not set(known_packages()) & set(state.packages):
        yield Reason(
            f"a Docker {state.docker_version} runs that no package brought; Docker's packages would come beside it",
            "remove it (its programs, docker.service below /etc/systemd/system, and daemons that run), then deploy",
            "docker-not-packaged",
        )
    if state.dockers.rootless_users and not state.docker_info.rootless:
        guarded = " (and AppArmor restricts what it may do here)" if state.guards.userns_restricted else ""
        yield Reason(
            f"a rootless Docker of {', '.join(state.dockers.rootless_users)} runs beside the system's{guarded}; "
            "ports and GPU memory that its containers hold are not seen as theirs",
            "nothing, if it stays away from the cards and ports; else stop its containers",
            "docker-rootless",
            "warn",
        )


def _too_old(look: Look) -> Iterator[Reason]:
    """Docker's own packages are replaced by the pinned ones; the distribution's stay as they are."""
    host, state = look.host, look.state
    version = numbers(state.docker_version)
    if host.settings.docker.source == "distribution" and version and version < OLDEST_DOCKER and not _is_foreign(look):
        yield Reason(
            f"Docker {state.docker_version} is too old: GPUs can be given to containers from {_dotted(OLDEST_DOCKER)} on",
            'apt upgrade it, or use docker = {"source": "docker-ce"}',
            "docker-too-old",
        )


def _is_foreign(look: Look) -> bool:
    return look.state.dockers.is_podman or look.state.dockers.path.startswith("/snap")


def _composes(look: Look) -> Iterator[Reason]:
    """Compose programs that people put there. In a plugin directory they are used instead of the package's."""
    oldest = OLDEST_COMPOSE_FOR_CDI if look.host.settings.docker.gpus_by_cdi else OLDEST_COMPOSE
    for path, version in look.state.dockers.composes.items():
        if "/cli-plugins/" in path:
            old = numbers(version) < oldest
            words = f"Compose {version}" if version else "a Compose that does not tell its version"
            yield Reason(
                f"{path} ({words}) goes before the package's Compose"
                + (f" and is older than {_dotted(oldest)}, which Stoker's files need" if old else ""),
                f"rm {path}",
                "compose",
                "refuse" if old else "warn",
            )
        elif numbers(version) < OLDEST_COMPOSE:
            yield Reason(
                f"{path} is Compose {version or 'of an unknown version'}: it cannot read Stoker's files",
                "use `docker compose` (without the dash) on this host",
                "compose",
                "note",
            )


def _daemon_json(look: Look) -> Iterator[Reason]:
    text = look.state.contents.get(DAEMON_JSON, "")
    try:
        have = json.loads(text) if text.strip() else {}
        reason = "" if isinstance(have, dict) else "it is not an object"
    except ValueError as error:
        have, reason = {}, str(error)
    if reason:
        yield Reason(
            f"{DAEMON_JSON} cannot be read ({reason}); Docker would not start with it",
            "correct or remove the file; Stoker does not overwrite it",
            "daemon-json",
        )
        return
    changed = list(_changes(have, daemon_settings(look.host)))
    if changed:
        kept = [key for key in ("default-runtime", "runtimes", "data-root") if key in have]
        yield Reason(
            f"settings of {DAEMON_JSON} change: {', '.join(changed)}" + (f"; {', '.join(kept)} stay" if kept else ""),
            "nothing, if that is right; else set `docker` in group_data (its `daemon` takes any key)",
            "daemon-json-changes",
            "note",
        )


def _changes(have: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Values that are there and become others, old and new; what is only added is not among them."""
    for key, new in wanted.items():
        if key not in have or have[key] == new:
            continue
        old, name = have[key], f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{name}.")
        else:
            yield f"{name} {json.dumps(old)} -> {json.dumps(new)}"


def numbers(version: str) -> tuple[int, ...]:
    """``v2.29.7-desktop.1`` -> (2, 29, 7); empty when it does not begin with a number."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    return tuple(map(int, found.group(1).split("."))) if found else ()


def _dotted(version: tuple[int, ...]) -> str:
    return f"{version[0]}.{version[1]:02d}" if version[0] == 19 else ".".join(map(str, version))

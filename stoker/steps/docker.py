"""Docker: settings first, then packages, so that it starts with the right settings the first time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps.action import Action, File, write_files
from stoker.steps.packages import Package, install, missing

DAEMON_JSON = "/etc/docker/daemon.json"
UNIT = "docker.service"

#: What the distribution offers for the same job. Not all of it is in docker-ce's Conflicts (docker-ce-packaging#1339).
_DISTRIBUTIONS = (
    "docker.io",
    "docker-cli",
    "docker-compose",
    "docker-compose-v2",
    "docker-buildx",
    "podman-docker",
    "containerd",
    "runc",
)
_DOCKERS = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")

#: Packages whose replacement restarts a daemon.
_DAEMONS = ("docker-ce", "docker.io", "containerd.io")


def packages(host: Host, state: HostState) -> list[Package]:
    versions = host.settings.versions
    if host.settings.docker.source == "distribution":
        compose = "docker-compose-v2" if state.os_id == "ubuntu" else "docker-compose"
        return [Package("docker.io"), *([Package("docker-cli")] if state.os_id == "debian" else []), Package(compose)]
    return [
        Package("docker-ce", f"5:{versions.docker}"),
        Package("docker-ce-cli", f"5:{versions.docker}"),
        Package("containerd.io"),
        Package("docker-buildx-plugin"),
        Package("docker-compose-plugin", versions.compose),
    ]


def in_the_way(host: Host, state: HostState) -> list[str]:
    """Installed packages of the other source."""
    others = _DISTRIBUTIONS if host.settings.docker.source == "docker-ce" else _DOCKERS
    return [name for name in others if name in state.packages]


def known_packages() -> list[str]:
    """Every package that the step must know of."""
    return [*_DISTRIBUTIONS, *_DOCKERS]


def daemon_settings(host: Host) -> dict[str, Any]:
    """What Stoker wants in daemon.json; keys that are not named here stay as they are on the host."""
    docker, mirrors, proxy = host.settings.docker, host.settings.mirrors, host.settings.proxy
    wanted: dict[str, Any] = {
        "log-driver": "json-file",
        "log-opts": {"max-size": docker.log_max_size, "max-file": str(docker.log_max_file)},
        # Either the GPUs come by CDI, or systemd must keep its hands off the containers' device rules: a daemon-reload
        # would take the GPUs away from them.
        **({"features": {"cdi": True}} if docker.gpus_by_cdi else {"exec-opts": ["native.cgroupdriver=cgroupfs"]}),
        **docker.daemon,
    }
    if mirrors.registries:
        wanted["registry-mirrors"] = list(mirrors.registries)
    proxies = {"http-proxy": proxy.http, "https-proxy": proxy.https, "no-proxy": ",".join(proxy.no_proxy)}
    if proxy.http or proxy.https:
        wanted["proxies"] = {key: value for key, value in proxies.items() if value}
    return wanted


def merged(current: str, wanted: Mapping[str, Any]) -> str | None:
    """The new text of daemon.json, or None when it already says what is wanted. Raises ValueError for broken JSON."""
    have = json.loads(current) if current.strip() else {}
    if not isinstance(have, dict):
        raise ValueError("it is not an object {...}")
    new = _merge(have, wanted)
    return None if new == have else json.dumps(new, indent=2) + "\n"


def _merge(have: Any, wanted: Any) -> Any:
    if isinstance(have, dict) and isinstance(wanted, Mapping):
        return {**have, **{key: _merge(have.get(key), value) for key, value in wanted.items()}}
    return wanted


def actions(host: Host, state: HostState) -> list[Action]:
    found = []
    running = [name for name, container in state.containers.items() if container.running]
    text = merged(state.contents.get(DAEMON_JSON, ""), daemon_settings(host))
    lacking = missing(state, packages(host, state))
    others = in_the_way(host, state)
    replaced = ({package.name for package in lacking} | set(others)) & set(_DAEMONS)
    if text is not None:
        restart = state.docker_running and not replaced & {"docker-ce", "docker.io"}  # else the package restarts it
        # dockerd reads the new file itself before it replaces the old one.
        # (--validate came with 23.0.)
        check = 'if dockerd --help 2>/dev/null | grep -q -- --validate; then dockerd --validate --config-file "$new/daemon.json"; fi'
        script, stdin = write_files(
            [File(DAEMON_JSON, text)], "/etc/docker", check=check, after=_restart() if restart else ""
        )
        what = "merge settings into daemon.json" + (" and restart dockerd" if restart else "")
        found.append(
            Action(what, script, stdin, interrupts=f"{len(running)} running containers" if restart and running else "")
        )
    if lacking or others:
        found.append(
            install(
                lacking or packages(host, state),
                remove=others,
                interrupts=f"{len(running)} running containers" if replaced and running else "",
            )
        )
    if lacking or not state.docker_running or state.units.get(UNIT) != "active enabled":
        found.append(Action("start Docker, now and at boot", f"systemctl enable --now docker.service && {_answers()}"))
    return found


def _restart() -> str:
    return f"systemctl restart docker.service && {_answers()}"


def _answers() -> str:
    """Wait until the daemon answers: a unit counts as started before its API does."""
    return (
        "i=0; until docker version -f '{{.Server.Version}}' >/dev/null 2>&1; do i=$((i+1)); test $i -lt 60 || "
        "{ journalctl -u docker.service -n 20 --no-pager; exit 1; }; sleep 0.5; done"
    )

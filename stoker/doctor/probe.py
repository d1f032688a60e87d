"""The doctor's part of the one shell script that looks at a host: what only a running system can say.

Everything that takes its time (a program in each container) runs side by side, and prints its answer as one line.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from stoker.facts.probe import script
from stoker.facts.state import SECTION
from stoker.render.compose import HOST_STATE
from stoker.spec.fleet import Fleet, Host
from stoker.steps.layout import directories
from stoker.steps.questions import questions

#: Seconds for one answer out of a container. nvidia-smi takes one or two where the driver is not kept loaded.
CONTAINER_SECONDS = 8

#: Beside Stoker's own directories: where Docker and apt write, and where the jobs of a deploy do.
_SYSTEM_DIRECTORIES = ("/", "/var/lib/docker", "/var/lib/containerd", "/var/cache/apt", "/run")

_INSPECT = (
    '{"name":{{json .Name}},"exit":{{.State.ExitCode}},"oom":{{.State.OOMKilled}},"error":{{json .State.Error}},'
    '"finished":{{json .State.FinishedAt}}}'
)
#: Names of those whose log is worth reading.
_TROUBLED = '{{if or (ne .State.Status "running") .RestartCount}}{{.Name}}{{end}}'


def whole_script(fleet: Fleet, host: Host) -> str:
    """Everything that the doctor asks of a host, one command."""
    return f"{live_script(host)}\n{script(questions(fleet, host))}"


def watched_directories(host: Host) -> list[str]:
    """What Stoker, Docker and apt write to: their file systems are looked at."""
    return [*_SYSTEM_DIRECTORIES, HOST_STATE, *directories(host)]


def live_script(host: Host) -> str:
    """POSIX sh; what may be missing is allowed to be missing."""
    instances = [instance for _, instance in host.instances()]
    gateways = [stack.gateway.container for stack in host.stacks if stack.gateway]
    names = " ".join(map(shlex.quote, [*(instance.name for instance in instances), *gateways]))
    with_cards = [instance.name for instance in instances if host.profile_of(instance).uses_cards]
    ollamas = [instance for instance in instances if instance.engine == "ollama"]
    paths = " ".join(map(shlex.quote, watched_directories(host)))
    return "\n".join(
        [
            "export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin",
            _section("live-disks"),
            # Each path by itself: one that is not there, or hangs, must not hide the others.
            f'for d in {paths}; do timeout 5 df -B1 --output=used,avail,itotal,iused,target "$d" 2>/dev/null | tail -n +2; done | sort -u',
            *_gpus(),
            "if command -v docker >/dev/null; then",
            _section("live-containers"),
            f"timeout {CONTAINER_SECONDS} docker inspect -f {shlex.quote(_INSPECT)} {names} 2>/dev/null",
            _section("live-cards"),
            *_side_by_side([_cards_in(name) for name in with_cards]),
            _section("live-resident"),
            *_side_by_side([_resident(instance.name, instance.port) for instance in ollamas]),
            _section("live-compute"),
            *_side_by_side([_compute_line(instance.name) for instance in ollamas]),
            _section("live-logs"),
            f"for n in $(timeout {CONTAINER_SECONDS} docker inspect -f {shlex.quote(_TROUBLED)} {names} 2>/dev/null); do "
            f'printf \'%s\\t%s\\n\' "${{n#/}}" "$(timeout {CONTAINER_SECONDS} docker logs --tail 300 "${{n#/}}" 2>&1 | tail -c 24000 | base64 -w0)"; done',
            "fi",
        ]
    )


def _section(name: str) -> str:
    return f"echo {shlex.quote(SECTION + name)}"


def _side_by_side(commands: Sequence[str]) -> list[str]:
    return [*(f"{{ {command}; }} &" for command in commands), "wait"] if commands else []


def _line(name: str, command: str) -> str:
    """``name<TAB>output``, one line of at most 4000 bytes: longer ones could be mixed up on their way (PIPE_BUF)."""
    return f"printf '%s\\t%s\\n' {shlex.quote(name)} \"$({command} | tr '\\n\\t' '  ' | cut -c1-4000)\""


def _cards_in(name: str) -> str:
    quoted = shlex.quote(name)
    return (
        f"o=$(timeout {CONTAINER_SECONDS} docker exec {quoted} nvidia-smi -L 2>&1); s=$?; "
        f"printf '%s\\t%s\\t%s\\n' {quoted} $s \"$(printf %s \"$o\" | tr '\\n\\t' '  ' | cut -c1-3900)\""
    )


def _resident(name: str, port: int) -> str:
    return _line(name, f"curl -q -s --noproxy '*' -m {CONTAINER_SECONDS} http://127.0.0.1:{port}/api/ps")


def _compute_line(name: str) -> str:
    quoted = shlex.quote(name)
    started = f"$(docker inspect -f '{{{{.State.StartedAt}}}}' {quoted} 2>/dev/null)"
    log = f'timeout {CONTAINER_SECONDS} docker logs --since "{started}" {quoted} 2>&1'
    return _line(name, f"{log} | grep -m1 'inference compute'")


def _gpus() -> list[str]:
    query = f"timeout {CONTAINER_SECONDS} nvidia-smi --format=csv,noheader"
    return [
        "if command -v nvidia-smi >/dev/null; then",
        _section("live-persistence"),
        f"{query} --query-gpu=index,persistence_mode 2>/dev/null",
        _section("live-holders"),
        f"for p in $({query} --query-compute-apps=pid 2>/dev/null); do test -r /proc/$p/cgroup && "
        "printf '%s\\t%s\\n' $p \"$(tr '\\n' ' ' </proc/$p/cgroup)\"; done",
        "fi",
    ]

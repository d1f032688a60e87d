"""The doctor's part of the one shell script that looks at a host: what only a running system can say.

Everything is asked side by side, and each answer is one line: kind, name, values, with tabs between them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from stoker.doctor.live import LIVE
from stoker.facts.probe import script
from stoker.facts.state import SECTION
from stoker.spec.fleet import Fleet, Host
from stoker.steps.layout import directories
from stoker.steps.questions import questions

#: Bytes of an answer: longer lines could be mixed up with another's on their way (PIPE_BUF is 4096).
_LINE_BYTES = 3900
_ONE_LINE = f"| tr '\\n\\t' '  ' | cut -c1-{_LINE_BYTES}"

#: Seconds for one answer out of a container. nvidia-smi takes one or two where the driver is not kept loaded.
CONTAINER_SECONDS = 8

#: Beside Stoker's own directories: where Docker and apt write, and where the jobs of a deploy do.
_SYSTEM_DIRECTORIES = ("/", "/var/lib/docker", "/var/lib/containerd", "/var/cache/apt", "/run")

#: How a container's last run ended, as JSON.
END_FORMAT = (
    '{"name":{{json .Name}},"exit":{{.State.ExitCode}},"oom":{{.State.OOMKilled}},"error":{{json .State.Error}},'
    '"finished":{{json .State.FinishedAt}}}'
)
_STARTED = "{{.State.StartedAt}}"
#: Name of a container whose log is worth reading.
_TROUBLED = '{{if or (ne .State.Status "running") .RestartCount}}{{.Name}}{{end}}'


def whole_script(fleet: Fleet, host: Host) -> str:
    """Everything that the doctor asks of a host, one command."""
    return f"{live_script(host)}\n{script(questions(fleet, host))}"


def watched_directories(host: Host) -> list[str]:
    """What Stoker, Docker and apt write to: their file systems are looked at."""
    return [*_SYSTEM_DIRECTORIES, *directories(host)]


def live_script(host: Host) -> str:
    """POSIX sh; what may be missing is allowed to be missing."""
    commands = [f"{{ {command}; }} 2>/dev/null &" for command in [*_of_system(host), *_of_containers(host)]]
    return "\n".join(
        [
            "export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin",
            f"echo {shlex.quote(SECTION + LIVE)}",
            *commands,
            "wait",
            _logs(host),  # long lines, so by themselves
        ]
    )


def _of_system(host: Host) -> Iterator[str]:
    paths = " ".join(map(shlex.quote, watched_directories(host)))
    # Each path by itself: one that is not there, or hangs, must not hide the others.
    yield (
        f'for d in {paths}; do timeout 5 df -B1 --output=used,avail,itotal,iused,target "$d" | tail -n +2; done '
        "| while read -r line; do printf 'disk\\t%s\\n' \"$line\"; done"
    )
    query = f"timeout {CONTAINER_SECONDS} nvidia-smi --format=csv,noheader"
    yield f"{query} --query-gpu=index,persistence_mode | while read -r line; do printf 'persistence\\t%s\\n' \"$line\"; done"


def _of_containers(host: Host) -> Iterator[str]:
    yield f"docker inspect -f {shlex.quote(END_FORMAT)} {_names(host)} | while read -r line; do printf 'end\\t%s\\n' \"$line\"; done"
    for _, instance in host.instances():
        name = shlex.quote(instance.name)
        if host.profile_of(instance).uses_cards:
            yield (
                f"o=$(timeout {CONTAINER_SECONDS} docker exec {name} nvidia-smi -L 2>&1); s=$?; "
                f'printf \'cards\\t%s\\t%s\\t%s\\n\' {name} $s "$(printf %s "$o" {_ONE_LINE})"'
            )
        if instance.engine == "ollama":
            url = f"http://127.0.0.1:{instance.port}/api/ps"
            yield _answer("resident", name, f"curl -q -s --noproxy '*' -m {CONTAINER_SECONDS} {url}")
            log = f'docker logs --since "$(docker inspect -f {shlex.quote(_STARTED)} {name})" {name} 2>&1'
            yield _answer("compute", name, f"timeout {CONTAINER_SECONDS} {log} | grep -m1 'inference compute'")


def _answer(kind: str, name: str, command: str) -> str:
    return f"printf '{kind}\\t%s\\t%s\\n' {name} \"$({command} {_ONE_LINE})\""


def _logs(host: Host) -> str:
    troubled = f"timeout {CONTAINER_SECONDS} docker inspect -f {shlex.quote(_TROUBLED)} {_names(host)} 2>/dev/null"
    tail = f'timeout {CONTAINER_SECONDS} docker logs --tail 300 "${{n#/}}" 2>&1 | tail -c 24000 | base64 -w0'
    return f'for n in $({troubled}); do printf \'log\\t%s\\t%s\\n\' "${{n#/}}" "$({tail})"; done'


def _names(host: Host) -> str:
    """Every described container, quoted for the shell."""
    names = [name for stack in host.stacks for name in stack.containers]
    return " ".join(map(shlex.quote, names))

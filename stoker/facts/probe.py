"""The one shell script that finds out the state of a host.

The number of SSH round trips decides the speed of everything, so all of it goes as one command. POSIX sh and
what a bare Debian or Ubuntu has; everything that may be missing is allowed to be missing.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from stoker.facts.gpus import DAMAGED_INFOROM, GPU_FIELDS, PROCESS_FIELDS
from stoker.facts.state import SECTION


@dataclass(frozen=True)
class HttpProbe:
    """A request that the host makes to itself: ``name`` returns with the status code, or with a header's value."""

    name: str
    url: str
    header: str = ""


@dataclass(frozen=True)
class Questions:
    """What is asked beside the things that are always asked."""

    packages: Sequence[str] = ()
    files: Sequence[str] = ()
    file_patterns: Sequence[str] = ()  #: shell patterns, not quoted
    contents: Sequence[str] = ()
    units: Sequence[str] = ()
    images: Sequence[str] = ()
    disks: Sequence[str] = ()
    model_directories: Sequence[str] = ()
    http: Sequence[HttpProbe] = ()


_INSPECT = (
    '{"name":{{json .Name}},"id":{{json .Id}},"image":{{json .Image}},"status":{{json .State.Status}},'
    '"started":{{json .State.StartedAt}},"restarts":{{.RestartCount}},"labels":{{json .Config.Labels}},"ports":{{json .HostConfig.PortBindings}},'
    # What it was made from, for a comparison. Of the environment one variable only: others may hold secrets.
    '"reference":{{json .Config.Image}},"command":{{json .Config.Cmd}},"restart":{{json .HostConfig.RestartPolicy.Name}},'
    '"mounts":{{json .Mounts}},"runtime":{{json .HostConfig.Runtime}},"devices":{{json .HostConfig.DeviceRequests}},"visible":['
    '{{range .Config.Env}}{{$pair := split . "="}}{{if eq (index $pair 0) "NVIDIA_VISIBLE_DEVICES"}}{{json (index $pair 1)}},{{end}}{{end}}""]}'
)


def script(questions: Questions) -> str:
    """The probe. Always exits 0: a fact whose command fails would fail the host (pyinfra 3.10)."""
    quote = shlex.quote
    files = " ".join([*map(quote, questions.files), *questions.file_patterns])
    parts = [
        "export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin",
        _section("os") + "cat /etc/os-release 2>/dev/null",
        _section("identity") + 'echo "$(uname -m) $(id -u) $(id -un) $(date +%s)"',
    ]
    if questions.packages:
        names = " ".join(map(quote, questions.packages))
        parts.append(
            _section("packages")
            + f"dpkg-query -W -f '${{Package}}\\t${{Version}}\\t${{db:Status-Abbrev}}\\n' {names} 2>/dev/null"
        )
    if files:
        # Literal tabs: stat does not know \t in -c. What a link points to counts: a model directory may be on another disk.
        parts.append(_section("files") + f"stat -L -c '%F\t%a\t%U\t%G\t%n' {files} 2>/dev/null")
        parts.append(_section("digests") + f'for f in {files}; do test -f "$f" && sha256sum "$f"; done 2>/dev/null')
    for path in questions.contents:
        parts.append(_section(f"content {path}") + f"cat {quote(path)} 2>/dev/null; echo")
    if questions.units:
        parts.append(
            _section("units")
            + "".join(
                # Only a unit that exists: for another one older systemd (252) says nothing that could tell.
                f'test "$(systemctl show -p LoadState --value {quote(unit)} 2>/dev/null)" = loaded && '
                f'printf \'%s\\t%s %s\\n\' {quote(unit)} "$(systemctl is-active {quote(unit)})" "$(systemctl is-enabled {quote(unit)} 2>/dev/null)"; '
                for unit in questions.units
            )
        )
    parts += [
        _section("gpus") + "if command -v nvidia-smi >/dev/null; then "
        f"timeout 60 nvidia-smi --query-gpu={GPU_FIELDS} --format=csv,noheader,nounits 2>&1; "
        "else echo 'nvidia-smi: not found'; (exit 127); fi; smi=$?; echo rc=$smi",
        # Not asked again when the first answer was an error: a driver that hangs would cost another minute.
        _section("gpu-processes") + f"if [ $smi -eq 0 ] || [ $smi -eq {DAMAGED_INFOROM} ]; then "
        f"timeout 60 nvidia-smi --query-compute-apps={PROCESS_FIELDS} --format=csv,noheader,nounits 2>/dev/null; fi",
        # What is loaded; else what is installed, by its licence.
        _section("kernel-module")
        + "cat /proc/driver/nvidia/version 2>/dev/null || modinfo -F license nvidia 2>/dev/null",
        _section("memory") + "awk '/^MemTotal:/ {print $2}' /proc/meminfo",
        _section("listeners") + "ss -Hltnp 2>/dev/null",
    ]
    if questions.disks:
        disks = " ".join(map(quote, questions.disks))
        parts.append(
            _section("disk")
            + (
                f'for d in {disks}; do p=$d; while [ ! -e "$p" ]; do p=$(dirname "$p"); done; '
                'printf \'%s\\t%s\\n\' "$d" "$(df -PB1 "$p" | awk \'NR==2 {print $4}\')"; done'
            )
        )
    for directory in questions.model_directories:
        parts.append(_section("models") + f"find {quote(directory)} -type f -printf '%H\\t%P\\t%s\\n' 2>/dev/null")
    parts.append(_docker(questions))
    if questions.http:
        parts.append(_http(questions.http))
    return "\n".join([*parts, "exit 0"])


def _section(name: str) -> str:
    return f"echo {shlex.quote(SECTION + name)}; "


def _docker(questions: Questions) -> str:
    images = " ".join(map(shlex.quote, questions.images))
    inspect_images = (
        f'for i in {images}; do printf \'%s\\t%s\\n\' "$i" "$(docker image inspect -f \'{{{{.Id}}}}\' "$i" 2>/dev/null)"; done'
        if images
        else ":"
    )
    return "\n".join(
        [
            "if command -v docker >/dev/null; then",
            _section("docker-path") + "command -v docker",
            _section("docker")
            + 'v=$(timeout 20 docker version -f \'{{.Server.Version}}\' 2>&1) && echo "$v" || echo "error $v"',
            _section("containers")
            + f'c=$(timeout 20 docker ps -aq 2>/dev/null) && test -n "$c" && docker inspect -f {shlex.quote(_INSPECT)} $c 2>/dev/null',
            _section("images") + inspect_images,
            "fi",
        ]
    )


def _http(probes: Sequence[HttpProbe]) -> str:
    """All requests at once: together they take as long as the slowest, at most 2 s."""
    lines = [_section("answers") + "if command -v curl >/dev/null; then"]
    for probe in probes:
        url = shlex.quote(probe.url)
        if probe.header:
            # Not -w %header{}: Ubuntu 22.04 has curl 7.81, which does not know it.
            awk = f"awk -F': ' 'tolower($1) == \"{probe.header.lower()}\" {{print \"{probe.name}\\t\" $2}}'"
            lines.append(f"curl -q -s --noproxy '*' -o /dev/null -m 2 -D - {url} | tr -d '\\r' | {awk} &")
        else:
            lines.append(f"curl -q -s --noproxy '*' -o /dev/null -m 2 -w '{probe.name}\\t%{{http_code}}\\n' {url} &")
    return "\n".join([*lines, "wait; fi"])

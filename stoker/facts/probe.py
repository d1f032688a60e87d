"""The one shell script that finds out the state of a host.

The number of SSH round trips decides the speed of everything, so all of it goes as one command. POSIX sh and
what a bare Debian or Ubuntu has; everything that may be missing is allowed to be missing.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from stoker.facts.gpus import DAMAGED_INFOROM, GPU_FIELDS, PROCESS_FIELDS
from stoker.facts.paths import DOCKER_SOCKET, FIREWALL_RULES, FIREWALL_TABLE
from stoker.facts.state import SECTION

#: What an image that was built here was built from: the hash of its files (stoker/steps/build.py).
CONTEXT_LABEL = "stoker.context"


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
    built: Sequence[str] = ()  #: of them, those with a label that says from which files they were built
    disks: Sequence[str] = ()
    apt_sources: Sequence[str] = ()  #: words; the lines of apt's sources that hold one are looked at
    model_directories: Sequence[str] = ()
    http: Sequence[HttpProbe] = ()


def _section(name: str) -> str:
    return f"echo {shlex.quote(SECTION + name)}; "


_INSPECT = (
    '{"name":{{json .Name}},"id":{{json .Id}},"image":{{json .Image}},"status":{{json .State.Status}},'
    '"started":{{json .State.StartedAt}},"restarts":{{.RestartCount}},"labels":{{json .Config.Labels}},"ports":{{json .HostConfig.PortBindings}},'
    # What it was made from, for a comparison. Of the environment one variable only: others may hold secrets.
    '"reference":{{json .Config.Image}},"command":{{json .Config.Cmd}},"restart":{{json .HostConfig.RestartPolicy.Name}},'
    '"mounts":{{json .Mounts}},"runtime":{{json .HostConfig.Runtime}},"devices":{{json .HostConfig.DeviceRequests}},"visible":['
    '{{range .Config.Env}}{{$pair := split . "="}}{{if eq (index $pair 0) "NVIDIA_VISIBLE_DEVICES"}}{{json (index $pair 1)}},{{end}}{{end}}""]}'
)


#: Where the Compose plugin is looked for before the packages' own place (docker/cli, cli-plugins/manager).
COMPOSE_PLACES = (
    "$HOME/.docker/cli-plugins/docker-compose",
    "/usr/local/lib/docker/cli-plugins/docker-compose",
    "/usr/local/libexec/docker/cli-plugins/docker-compose",
    "/usr/local/bin/docker-compose",
)


def script(questions: Questions) -> str:
    """The probe. Always exits 0: a fact whose command fails would fail the host (pyinfra 3.10)."""
    quote = shlex.quote
    files = " ".join([*map(quote, questions.files), *questions.file_patterns])
    parts = [
        "export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin",
        _section("os") + "cat /etc/os-release 2>/dev/null",
        _IDENTITY,
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
    parts += _contents(questions)
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
        *_CARDS,
        # What is loaded; else what is installed, by its licence.
        _section("kernel-module")
        + "cat /proc/driver/nvidia/version 2>/dev/null || modinfo -F license nvidia 2>/dev/null",
        # What the next boot loads.
        _section("module-version") + "modinfo -F version nvidia 2>/dev/null",
        _section("memory") + "awk '/^MemTotal:/ {print $2}' /proc/meminfo",
        _section("listeners") + "ss -Hltnp 2>/dev/null",
    ]
    for directory in questions.model_directories:
        parts.append(_section("models") + f"find -L {quote(directory)} -type f -printf '%H\\t%P\\t%s\\n' 2>/dev/null")
    parts += ["info=", _docker(questions), _DOCKERS, _PACKAGING, _GUARDS, _FIREWALL]
    if questions.apt_sources:
        patterns = " ".join(f"-e {quote(one)}" for one in questions.apt_sources)
        parts.append(
            _section("apt-sources") + f"grep -HF {patterns} /etc/apt/sources.list "
            "/etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null"
        )
    parts.append(_disks(questions.disks))
    if questions.http:
        parts.append(_http(questions.http))
    return "\n".join([*parts, "exit 0"])


def glance(questions: Questions) -> str:
    """The part of the probe that changes by itself, cheap enough to be asked every few seconds: cards, containers, answers, and the
    contents of files that were asked for."""
    parts = [
        "export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin",
        _IDENTITY,
        *_contents(questions),
        *_CARDS,
        "info=",
        _docker(questions),
    ]
    return "\n".join([*parts, _http(questions.http), "exit 0"])


def _contents(questions: Questions) -> list[str]:
    return [_section(f"content {path}") + f"cat {shlex.quote(path)} 2>/dev/null; echo" for path in questions.contents]


_IDENTITY = _section("identity") + 'echo "$(uname -m) $(id -u) $(id -un) $(date +%s)"'

#: Who computes on the cards, and in which container. ``$smi``: exit status of the question about the cards. Not asked again when
#: that was an error: a driver that hangs would cost another minute.
GPU_PROCESSES = (
    _section("gpu-processes") + f"if [ $smi -eq 0 ] || [ $smi -eq {DAMAGED_INFOROM} ]; then "
    f"apps=$(timeout 60 nvidia-smi --query-compute-apps={PROCESS_FIELDS} --format=csv,noheader,nounits 2>/dev/null); "
    'printf "%s\\n" "$apps"; fi\n'
    + _section("gpu-containers")
    + "for p in $(printf '%s\\n' \"$apps\" | awk -F, '$2 {print $2}' 2>/dev/null); do "
    "printf '%s\\t%s\\n' $p \"$(tr '\\n' ' ' 2>/dev/null </proc/$p/cgroup)\" 2>/dev/null; done"
)

_CARDS = (
    _section("gpus") + "if command -v nvidia-smi >/dev/null; then "
    f"timeout 60 nvidia-smi --query-gpu={GPU_FIELDS} --format=csv,noheader,nounits 2>&1; "
    "else echo 'nvidia-smi: not found'; (exit 127); fi; smi=$?; echo rc=$smi",
    GPU_PROCESSES,
)


#: Whatever else calls itself Docker. A snap may be installed although this shell does not look for programs there.
_DOCKERS = "\n".join(
    [
        _section("docker-path") + "test -e /snap/bin/docker && echo /snap/bin/docker || command -v docker",
        # A link to podman, or the script of the package podman-docker.
        _section("docker-is")
        + 'd=$(command -v docker) && case $(readlink -f "$d" 2>/dev/null) in */podman) echo podman;; '
        "*) head -c 300 \"$d\" 2>/dev/null | grep -aq 'podman' 2>/dev/null && echo podman;; esac",
        _section("docker-rootless")
        + 'for s in /run/user/*/docker.sock; do test -S "$s" && stat -c %U "$s" 2>/dev/null; done',
        _section("composes") + f'for f in {" ".join(COMPOSE_PLACES)}; do test -x "$f" && '
        'printf \'%s\\t%s\\n\' "$f" "$(timeout 10 "$f" version --short 2>/dev/null)"; done',
    ]
)

#: Not `dpkg --audit`: that also names packages which lack no more than a list of checksums.
_PACKAGING = "\n".join(
    [
        _section("unfinished") + "dpkg-query -W -f '${db:Status-Abbrev}\\t${Package}\\n' 2>/dev/null | "
        "awk -F'\\t' '$1 ~ /^.[HUF]/ || $1 ~ /^..R/ {print $2}' 2>/dev/null; "
        'for f in /var/lib/dpkg/updates/[0-9]*; do test -e "$f" && echo "$f" && break; done',
        _section("apt-lock") + "for p in $(awk -v a=$(stat -c %i /var/lib/dpkg/lock-frontend 2>/dev/null || echo 0) "
        "'split($6, n, \":\") == 3 && n[3] == a {print $5}' /proc/locks 2>/dev/null); do "
        'test "$p" -gt 0 && echo "$(cat /proc/$p/comm 2>/dev/null) (process $p)"; done',
    ]
)

_GUARDS = "\n".join(
    [
        _section("guards") + "printf 'selinux=%s\\napparmor=%s\\nuserns=%s\\ncgroup=%s\\n' "
        '"$(cat /sys/fs/selinux/enforce 2>/dev/null)" "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" '
        '"$(cat /proc/sys/kernel/apparmor_restrict_unprivileged_userns 2>/dev/null)" "$(stat -fc %T /sys/fs/cgroup 2>/dev/null)"',
        "command -v apparmor_parser >/dev/null && echo apparmor-parser=yes",
        "test -d /sys/module/nouveau && echo nouveau=yes",
        # The variable's four bytes of attributes, then its value.
        "for f in /sys/firmware/efi/efivars/SecureBoot-*; do "
        'test -e "$f" && echo "secure-boot=$(od -An -tu1 -j4 -N1 "$f" 2>/dev/null)"; done',
    ]
)


#: The table in the kernel beside what its file makes in an empty network namespace: nft prints one table in another way
#: than it was written, and each version in its own.
_FIREWALL = "\n".join(
    [
        _section("firewall") + f't=$(nft -s list table {FIREWALL_TABLE} 2>/dev/null); if test -n "$t"; then '
        f"w=$(unshare -n sh -c 'nft -f {FIREWALL_RULES} && nft -s list table {FIREWALL_TABLE}' 2>/dev/null); "
        'test "$t" = "$w" && echo "as written" || echo "another"; fi',
        _section("bridges") + 'for i in /sys/class/net/br-*; do test -e "$i" && echo "${i##*/}"; done',
    ]
)


#: The ids of the containers or of the image in an answer of Docker's. What a label says is quoted once more, and so does not match.
_IDS = """grep -o '"Id":"[^"]*"' | cut -d '"' -f 4"""


def _field(name: str) -> str:
    """A shell command that prints one text of what Docker says of itself."""
    return f'printf \'%s\' "$info" | sed -n \'s/^{{.*"{name}":"\\([^"]*\\)".*/\\1/p\' 2>/dev/null'


def _disks(paths: Sequence[str]) -> str:
    """Room and file system of each path, or of the nearest directory above it; Docker's own places always among them."""
    return (
        _section("disk") + f"r=$({_field('DockerRootDir')}); "
        'test -n "$r" || r=$(sed -n \'s/.*"data-root"[^"]*"\\([^"]*\\)".*/\\1/p\' /etc/docker/daemon.json 2>/dev/null); '
        f'for d in {" ".join(map(shlex.quote, paths))} "$r"; do p=$d; '
        'while [ -n "$p" ] && [ ! -e "$p" ]; do p=$(dirname "$p"); done; test -n "$p" && '
        'printf \'%s\\t%s\\n\' "$d" "$(df -PB1 "$p" | awk \'NR==2 {f=$1; if (f !~ /^\\//) f=$6; print $4 "\\t" f}\')"; done'
    )


def _ask_docker() -> str:
    """A shell function for Docker's own interface: each call of its command costs some 100 ms of processor time.

    It says nothing and fails, and ``$api`` is empty, where there is no curl yet, or the command is led to another daemon; the
    command is asked there. Containers are inspected by the command anyway: its template leaves their secrets on the host.
    """
    return (
        f'api=; command -v curl >/dev/null && test -S {DOCKER_SOCKET} && test -z "$DOCKER_HOST$DOCKER_CONTEXT" && '
        '! grep -qs currentContext "${DOCKER_CONFIG:-$HOME/.docker}/config.json" && api=yes\n'
        "ask() { test -n \"$api\" && curl -q -s -f --noproxy '*' -m 20 "
        f'--unix-socket {DOCKER_SOCKET} "http://docker$1" 2>/dev/null; }}'
    )


def _docker(questions: Questions) -> str:
    images = " ".join(map(shlex.quote, questions.images))
    inspect_images = (
        f'for i in {images}; do printf \'%s\\t%s\\n\' "$i" "$(if test -n "$api"; then ask "/images/$i/json" | {_IDS} | head -n 1; '
        'else docker image inspect -f \'{{.Id}}\' "$i"; fi 2>/dev/null)"; done'
        if images
        else ":"
    )
    return "\n".join(
        [
            "if command -v docker >/dev/null; then",
            _ask_docker(),
            "info=$(ask /info) || { api=; info=$(timeout 20 docker info -f '{{json .}}' 2>/dev/null); }",
            # Where this said nothing, another says why.
            _section("docker") + f'v=$({_field("ServerVersion")}); test -n "$v" && echo "$v" || '
            '{ v=$(timeout 20 docker version -f \'{{.Server.Version}}\' 2>&1) && echo "$v" || echo "error $v"; }',
            _section("docker-info") + 'echo "$info"',
            _section("containers")
            + f'c=$(if test -n "$api"; then ask "/containers/json?all=1" | {_IDS}; else timeout 20 docker ps -aq; fi 2>/dev/null); '
            f'test -n "$c" && docker inspect -f {shlex.quote(_INSPECT)} $c 2>/dev/null',
            _section("images") + inspect_images,
            *([_section("contexts") + _contexts(questions.built)] if questions.built else []),
            "fi",
        ]
    )


def _contexts(images: Sequence[str]) -> str:
    label = shlex.quote(f'{{{{index .Config.Labels "{CONTEXT_LABEL}"}}}}')
    names = " ".join(map(shlex.quote, images))
    return (
        f'for i in {names}; do printf \'%s\\t%s\\n\' "$i" "$(docker image inspect -f {label} "$i" 2>/dev/null)"; done'
    )


def _http(probes: Sequence[HttpProbe]) -> str:
    """All requests at once: together they take as long as the slowest, at most 2 s. No certificate is made out to 127.0.0.1."""
    lines = [_section("answers") + "if command -v curl >/dev/null; then"]
    for probe in probes:
        url = shlex.quote(probe.url)
        if probe.header:
            # Not -w %header{}: Ubuntu 22.04 has curl 7.81, which does not know it.
            awk = f"awk -F': ' 'tolower($1) == \"{probe.header.lower()}\" {{print \"{probe.name}\\t\" $2}}'"
            lines.append(f"curl -q -s -k --noproxy '*' -o /dev/null -m 2 -D - {url} | tr -d '\\r' | {awk} &")
        else:
            lines.append(f"curl -q -s -k --noproxy '*' -o /dev/null -m 2 -w '{probe.name}\\t%{{http_code}}\\n' {url} &")
    return "\n".join([*lines, "wait; fi"])

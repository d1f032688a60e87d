"""The package repositories of Docker and of NVIDIA's container toolkit: pinned key, deb822 file, signed-by."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.steps import driver, openpgp
from stoker.steps.action import Action, File, Say, Shell, write_files
from stoker.steps.packages import Package, install, update_command

KEYRINGS = "/etc/apt/keyrings"
SOURCES = "/etc/apt/sources.list.d"
PROXY = "/etc/apt/apt.conf.d/80stoker-proxy"

_NAMES = ("docker", "nvidia-container-toolkit", driver.REPOSITORY)

#: Repositories are read over https.
CERTIFICATES = Package("ca-certificates")

#: Left by earlier installations under other names; apt stops with "Conflicting values set for option Signed-By".
LEFTOVERS = tuple(
    f"{SOURCES}/{name}.list"
    for name in (
        "docker",
        "nvidia-docker",
        "libnvidia-container",
        "nvidia-container-runtime",
        "nvidia-container-toolkit",
    )
)

#: Fields of a deb822 file that say whether and how a repository is used.
_FIELDS = ("Suites:", "Signed-By:", "Enabled:")


@dataclass(frozen=True)
class Repository:
    """One apt repository and the key it must be signed with."""

    name: str
    key_url: str
    key_fingerprint: str
    uri: str
    suite: str
    component: str = ""

    @property
    def key_path(self) -> str:
        return f"{KEYRINGS}/{self.name}.asc"

    def sources_file(self, architecture: str) -> File:
        lines = [f"# {self.name}: written by Stoker", "Types: deb", f"URIs: {self.uri}", f"Suites: {self.suite}"]
        if self.component:
            lines.append(f"Components: {self.component}")
        lines += [f"Architectures: {architecture}", f"Signed-By: {self.key_path}"]
        return File(f"{SOURCES}/{self.name}.sources", "\n".join(lines) + "\n")


def repositories(host: Host, state: HostState) -> list[Repository]:
    mirrors = host.settings.mirrors
    toolkit = Repository(
        "nvidia-container-toolkit",
        f"{mirrors.container_toolkit}/gpgkey",
        mirrors.container_toolkit_key,
        f"{mirrors.container_toolkit}/stable/deb/$(ARCH)",
        "/",
    )
    found = [toolkit] if host.gpus else []
    if host.settings.docker.source != "distribution":
        docker = f"{mirrors.docker}/{state.os_id}"
        found.insert(0, Repository("docker", f"{docker}/gpg", mirrors.docker_key, docker, state.os_codename, "stable"))
    release = driver.release(host, state)
    if release:
        uri = f"{mirrors.cuda}/{release.directory}"
        key = mirrors.cuda_key or release.key
        found.append(Repository(driver.REPOSITORY, f"{uri}/{release.key_file}", key, f"{uri}/", "/"))
    return found


def contents() -> list[str]:
    """Files whose text the step must see."""
    return [f"{KEYRINGS}/{name}.asc" for name in _NAMES]


def files() -> list[str]:
    """Files whose state the step must see."""
    return [*(f"{SOURCES}/{name}.sources" for name in _NAMES), PROXY, *LEFTOVERS]


def addresses(host: Host) -> list[str]:
    """What a line of apt's sources holds that names one of the repositories, however it is written; fields of other files, too."""
    mirrors = host.settings.mirrors
    return [
        *(urlsplit(url).netloc + urlsplit(url).path for url in (mirrors.docker, mirrors.container_toolkit)),
        *_FIELDS,
    ]


def debian_architecture(state: HostState) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(state.architecture, state.architecture)


def proxy_file(host: Host) -> File | None:
    """apt's proxy settings, or None where no proxy is described."""
    proxy = host.settings.proxy
    lines = [
        f'Acquire::{scheme}::Proxy "{url}";' for scheme, url in (("http", proxy.http), ("https", proxy.https)) if url
    ]
    lines += [f'Acquire::{scheme}::Proxy::{name} "DIRECT";' for name in proxy.no_proxy for scheme in ("http", "https")]
    return File(PROXY, "\n".join(lines) + "\n") if proxy.http or proxy.https else None


def actions(host: Host, state: HostState) -> list[Action]:
    """In an order in which each can work: the proxy, the certificates for https, then keys and sources."""
    found = []
    proxy = proxy_file(host)
    if proxy and not proxy.is_on(state):
        script, stdin = write_files([proxy], "/etc/apt")
        found.append(Action(f"write {PROXY}", script, stdin))
    elif not proxy and PROXY in state.files:
        found.append(Action(f"remove {PROXY}: no proxy is described any more", f"rm -f {PROXY}"))
    leftovers = [path for path in LEFTOVERS if path in state.files]
    if leftovers:
        moves = "; ".join(f"mv -f {shlex.quote(path)} {shlex.quote(path + '.disabled')}" for path in leftovers)
        found.append(Action(f"set aside old package sources: {', '.join(leftovers)}", moves))
    if not CERTIFICATES.is_in(state):
        found.append(install([CERTIFICATES]))
    wanted = [repository.sources_file(debian_architecture(state)) for repository in repositories(host, state)]
    for repository in repositories(host, state):
        if not _has_key(repository, state):
            found.append(
                Action(f"fetch the key of {repository.name} from {repository.key_url}", function=_FetchKey(repository))
            )
    stale = [file for file in wanted if not file.is_on(state)]
    if stale or leftovers or any(not _has_key(repository, state) for repository in repositories(host, state)):
        script, stdin = write_files(stale, "/etc/apt", after=update_command())
        names = ", ".join(file.path for file in stale) or "nothing new"
        found.append(Action(f"write {names} and refresh the package lists", script, stdin))
    return found


def _has_key(repository: Repository, state: HostState) -> bool:
    try:
        return list(openpgp.keys(state.contents.get(repository.key_path, ""))) == [repository.key_fingerprint]
    except ValueError:
        return False


@dataclass(frozen=True)
class _FetchKey:
    """Downloads a key on the host, compares its fingerprint, and only then puts it in place."""

    repository: Repository

    def __call__(self, shell: Shell, say: Say) -> str | None:
        url, path = shlex.quote(self.repository.key_url), self.repository.key_path
        # apt's own downloader: a bare host has no curl, and it knows apt's proxy settings.
        ok, lines = shell(
            f"t=$(mktemp -d) && /usr/lib/apt/apt-helper -o Acquire::Retries=2 download-file {url} $t/key >$t/log 2>&1 && cat $t/key "
            "|| { cat $t/log; rm -rf $t; exit 1; }; rm -rf $t"
        )
        if not ok:
            return f"the key could not be downloaded from {self.repository.key_url}: {' '.join(lines)[-400:]}"
        text = "\n".join(lines) + "\n"
        try:
            found = openpgp.keys(text)
        except ValueError as error:
            return f"{self.repository.key_url} is not a key: {error}"
        key = found.get(self.repository.key_fingerprint)
        if key is None:
            return (
                f"the key from {self.repository.key_url} has the fingerprint {', '.join(found)}, expected {self.repository.key_fingerprint}; "
                "if the mirror signs with its own key, set its fingerprint in `mirrors`"
            )
        script, stdin = write_files([File(path, key)], KEYRINGS)
        ok, lines = shell(script, stdin=stdin)
        return None if ok else f"{path} could not be written: {' '.join(lines)[-400:]}"

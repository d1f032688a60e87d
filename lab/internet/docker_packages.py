"""Docker's package repository for the lab: Debian's builds under the names, versions and layout of
download.docker.com.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.internet.aptroot import Package
from lab.internet.debpack import Deb, unit_scripts
from lab.internet.debrepo import Entry, entry_of, write_suite
from lab.internet.keys import SigningKey
from lab.internet.shell import BuildError, run

FILES = Path(__file__).parent / "files/docker"
LABEL = "Docker CE"
MAINTAINER = "Stoker lab (simulated) <lab@internet.test>"
ADD_GROUP = "    getent group docker >/dev/null || groupadd --system docker"


@dataclass(frozen=True)
class Source:
    """Where a file of a package comes from: a Debian package and a path in it, or (no package) a file of
    `files/docker`.
    """

    package: str
    path: str


@dataclass(frozen=True)
class Recipe:
    """One of upstream's packages: what its version follows, its relations, its files (path in the package ->
    source).
    """

    name: str
    version_of: str
    epoch: str
    relations: Mapping[str, str]
    files: Mapping[str, Source]
    scripts: Mapping[str, str]


def _own(name: str) -> Source:
    return Source("", name)


# Relations are those of upstream's packages for 28.x, less what the lab's repositories do not offer.
RECIPES = (
    Recipe(
        "docker-ce",
        "docker.io",
        "5:",
        {
            "Depends": "containerd.io (>= 1.7.27), docker-ce-cli, iptables, nftables, libc6 (>= 2.34), libsystemd0",
            "Recommends": "ca-certificates, pigz, procps, xz-utils",
            "Conflicts": "docker (<< 1.5~), docker-engine, docker.io",
            "Replaces": "docker-engine",
            "Description": "Docker Engine\n Debian's build, repackaged for the lab.",
        },
        {
            "usr/bin/dockerd": Source("docker.io", "usr/sbin/dockerd"),
            "usr/bin/docker-proxy": Source("docker.io", "usr/sbin/docker-proxy"),
            "usr/bin/docker-init": Source("tini-static", "usr/bin/tini-static"),
            "usr/lib/systemd/system/docker.service": _own("docker.service"),
            "usr/lib/systemd/system/docker.socket": _own("docker.socket"),
        },
        unit_scripts(["docker.service", "docker.socket"], before=ADD_GROUP),
    ),
    Recipe(
        "docker-ce-cli",
        "docker-cli",
        "5:",
        {
            "Depends": "libc6 (>= 2.34)",
            "Recommends": "docker-buildx-plugin, docker-compose-plugin",
            "Conflicts": "docker (<< 1.5~), docker-engine, docker.io (<< 27), docker-cli",
            "Replaces": "docker-ce (<< 5:0)",
            "Description": "Docker command line\n Debian's build, repackaged for the lab.",
        },
        {"usr/bin/docker": Source("docker-cli", "usr/bin/docker")},
        {},
    ),
    Recipe(
        "containerd.io",
        "containerd",
        "",
        {
            "Depends": "libc6 (>= 2.34), libseccomp2 (>= 2.5.0)",
            "Provides": "containerd, runc",
            "Conflicts": "containerd, runc",
            "Replaces": "containerd, runc",
            "Description": "An open and reliable container runtime\n Debian's build, repackaged for the lab.",
        },
        {
            "usr/bin/containerd": Source("containerd", "usr/bin/containerd"),
            "usr/bin/containerd-shim-runc-v2": Source("containerd", "usr/bin/containerd-shim-runc-v2"),
            "usr/bin/ctr": Source("containerd", "usr/bin/ctr"),
            "usr/bin/runc": Source("runc", "usr/sbin/runc"),
            "etc/containerd/config.toml": _own("containerd-config.toml"),
            "usr/lib/systemd/system/containerd.service": _own("containerd.service"),
        },
        unit_scripts(["containerd.service"]),
    ),
    Recipe(
        "docker-buildx-plugin",
        "docker-buildx",
        "",
        {
            "Depends": "libc6 (>= 2.34)",
            "Conflicts": "docker-buildx",
            "Enhances": "docker-ce-cli",
            "Description": "Docker Buildx plugin\n Debian's build, repackaged for the lab.",
        },
        {
            "usr/libexec/docker/cli-plugins/docker-buildx": Source(
                "docker-buildx", "usr/libexec/docker/cli-plugins/docker-buildx"
            )
        },
        {},
    ),
    Recipe(
        "docker-compose-plugin",
        "docker-compose",
        "",
        {
            "Depends": "libc6 (>= 2.34)",
            "Conflicts": "docker-compose, docker-compose-v2",
            "Enhances": "docker-ce-cli",
            "Description": "Docker Compose V2 plugin\n Debian's build, repackaged for the lab.",
        },
        {
            "usr/libexec/docker/cli-plugins/docker-compose": Source(
                "docker-compose", "usr/libexec/docker/cli-plugins/docker-compose"
            )
        },
        {},
    ),
)


def upstream_version(debian_version: str, codename: str, number: int, epoch: str = "") -> str:
    """Upstream's version of a Debian one: 28.5.2+dfsg4-5 for trixie, 13 -> 5:28.5.2-1~debian.13~trixie."""
    plain = debian_version.split(":", 1)[-1].rpartition("-")[0] or debian_version
    return f"{epoch}{plain.split('+', 1)[0].split('~', 1)[0]}-1~debian.{number}~{codename}"


def build_repository(root: Path, releases: Mapping[str, tuple[int, Mapping[str, Package]]], key: SigningKey) -> None:
    """Fill `root` (which is .../linux/debian). `releases`: codename -> (release number, Debian packages by
    name).
    """
    with tempfile.TemporaryDirectory(dir=root.parent) as temporary:
        work = Path(temporary)
        for codename, (number, packages) in releases.items():
            extracted = {name: _extract(package, work) for name, package in packages.items()}
            entries = [_build(recipe, codename, number, packages, extracted, root, work) for recipe in RECIPES]
            write_suite(root, codename, "stable", entries, key, LABEL)
    (root / "gpg").write_text(key.armored())


def _extract(package: Package, work: Path) -> Path:
    folder = work / f"{package.name}_{package.version}"
    if not folder.is_dir():
        run(["dpkg-deb", "--extract", package.file, folder])
    return folder


def _build(
    recipe: Recipe,
    codename: str,
    number: int,
    packages: Mapping[str, Package],
    extracted: Mapping[str, Path],
    root: Path,
    work: Path,
) -> Entry:
    tree = work / f"{recipe.name}-{codename}"
    for target, source in recipe.files.items():
        origin = extracted[source.package] / source.path if source.package else FILES / source.path
        if not origin.is_file():
            raise BuildError(
                f"{recipe.name} needs {source.path} of Debian's package {source.package}, which lacks it now"
            )
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(origin, tree / target, own=not source.package)
    version = upstream_version(packages[recipe.version_of].version, codename, number, recipe.epoch)
    deb = Deb(
        recipe.name,
        version,
        {"Maintainer": MAINTAINER, "Section": "admin", "Priority": "optional", **recipe.relations},
        dict(recipe.scripts),
    )
    file = deb.build(tree, root / "dists" / codename / "pool/stable/amd64")
    return entry_of(file, root)


def _link_or_copy(origin: Path, target: Path, *, own: bool) -> None:
    """Hard-link what was extracted in the same directory (megabytes, used for two releases); copy our own
    files, mode 0644.
    """
    if own:
        shutil.copyfile(origin, target)
        target.chmod(0o644)
    else:
        target.hardlink_to(origin)

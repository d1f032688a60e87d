"""Root file systems of container images, made by extracting Debian packages.

Nothing is installed: no maintainer script runs and no package database is kept, which takes seconds and
leaves small images. What the scripts of these few packages would have made (users, links, the linker's cache,
compiled Python) is made here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.internet.aptroot import Package
from lab.internet.shell import BuildError, run

# Only needed because other packages' scripts, or a package manager, would use them.
LEFT_OUT = frozenset(
    {
        "dpkg",
        "debconf",
        "libdebconfclient0",
        "init-system-helpers",
        "tzdata",
        "libpam-modules",
        "libpam-modules-bin",
        "libpam-runtime",
        "libdb5.3t64",
        "libc-gconv-modules-extra",
        "openssl-provider-legacy",
        "gcc-14-base",
        "gcc-16-base",
        "libaudit-common",
        "media-types",
        "readline-common",
    }
)
TRIMMED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/zsh",
    "usr/share/debianutils",
    "usr/share/menu",
    "usr/share/pixmaps",
    "usr/share/applications",
    "usr/share/common-licenses",
    "usr/share/util-linux",
    "usr/share/python3/runtime.d",
    "usr/lib/x86_64-linux-gnu/gconv",
    "var/cache",
    "var/lib/dpkg",
    "usr/lib/systemd",
    "usr/lib/python3.13/ensurepip",
    "usr/lib/python3.13/pydoc_data",
    "usr/lib/python3.13/idlelib",
    "usr/lib/python3.13/turtledemo",
    "usr/lib/python3.13/tkinter",
    "usr/lib/python3.13/curses",
    "usr/lib/python3.13/_pyrepl",
)


def extract(packages: Sequence[Package], root: Path) -> None:
    """Extract `packages` into `root` and trim what no container reads.

    base-files goes first: it brings the links of the merged /usr (/bin, /lib, /sbin).
    """
    for package in sorted(packages, key=lambda package: package.name != "base-files"):
        if package.name in LEFT_OUT:
            continue
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package.file], stdout=subprocess.PIPE) as unpacked:
            done = subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "-C", root],
                stdin=unpacked.stdout,
                capture_output=True,
                check=False,
            )
        if done.returncode or unpacked.returncode:
            raise BuildError(
                f"{package.file.name} could not be extracted: {done.stderr.decode(errors='replace').strip()}"
            )
    for path in TRIMMED:
        shutil.rmtree(root / path, ignore_errors=True)


def finish(root: Path) -> None:
    """Users, /bin/sh, standard directories, the linker's cache."""
    master = root / "usr/share/base-passwd"
    shutil.copyfile(master / "passwd.master", root / "etc/passwd")
    shutil.copyfile(master / "group.master", root / "etc/group")
    (root / "etc/nsswitch.conf").write_text(
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
    )
    for name, mode in (
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
        ("run", 0o755),
        ("root", 0o700),
        ("proc", 0o755),
        ("sys", 0o755),
        ("dev", 0o755),
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    for link, target in (("usr/bin/sh", "dash"), ("usr/bin/awk", "mawk")):
        if not (root / link).exists() and (root / link).parent.joinpath(target).exists():
            (root / link).unlink(missing_ok=True)
            (root / link).symlink_to(target)
    run(["ldconfig", "-r", root])
    (root / "var/cache/ldconfig/aux-cache").unlink(missing_ok=True)


def compile_python(root: Path, sources: Iterable[Path]) -> None:
    """Compile the Python files `sources` with the image's own interpreter: a container's first start is then quick.

    unchecked-hash: the compiled file is used whatever the source's time stamp, which a layer sets to 0.
    """
    names = "".join(f"/{source.relative_to(root)}\n" for source in sorted(sources))
    compiler = [
        "/usr/bin/python3",
        "-m",
        "compileall",
        "-q",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
        "-i",
        "-",
    ]
    (root / "dev/shm").mkdir(exist_ok=True)  # several processes talk through it
    run(["chroot", root, *compiler], stdin=names.encode())


def add_user(root: Path, name: str, uid: int, home: str) -> None:
    """Add a system user with a group of the same name and number to /etc/passwd and /etc/group."""
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write(f"{name}:x:{uid}:{uid}:{name}:{home}:/usr/sbin/nologin\n")
    with (root / "etc/group").open("a") as group:
        group.write(f"{name}:x:{uid}:\n")

"""The real nginx and njs that the gateway's tests run: Debian forky's packages, unpacked into the lab's cache.

The gateway needs nginx 1.30.6 and njs 1.0.1 or newer (docs/gateway.md says why). Debian 12 and 13 have older
ones, so forky's packages and the libraries they need (10 MB) are downloaded as the machine's own apt is
configured, verified, and unpacked; nothing is installed. nginx runs in a chroot of that tree, in a mount
namespace of its own, so that rendered files are used at the very paths that they have in a container.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import tempfile
from pathlib import Path

from lab.internet.aptroot import AptRoot
from lab.internet.shell import BuildError, run

CACHE_DEFAULT = "/var/cache/stoker-lab"
CONFIG_DIRECTORY = "/etc/nginx/stoker"
TLS_DIRECTORY = "/etc/nginx/stoker-tls"
STATE_DIRECTORY = "/run/stoker"
#: Debian package, oldest version that the gateway works with.
PACKAGES = {"nginx": (1, 30, 6), "libnginx-mod-http-js": (1, 0, 1)}

# The mounts are private to the process that is started here, and that process becomes nginx itself.
_ENTER = f"""
set -e
root=$1 config=$2; shift 2
mount --bind "$config" "$root{CONFIG_DIRECTORY}"
if test -d "$config-tls"; then
    mkdir -p "$root{TLS_DIRECTORY}"
    mount --bind "$config-tls" "$root{TLS_DIRECTORY}"
fi
for part in keys trust; do
    if test -d "$config-$part"; then
        mkdir -p "$root/etc/nginx/stoker-$part"
        mount --bind "$config-$part" "$root/etc/nginx/stoker-$part"
    fi
done
mount -t tmpfs tmpfs "$root/run"
mkdir "$root{STATE_DIRECTORY}"
if [ -d "$config.state" ]; then mount --bind "$config.state" "$root{STATE_DIRECTORY}"; fi
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
exec chroot "$root" "$@"
"""


class NginxUnavailable(RuntimeError):
    """The nginx of the tests cannot be had; says why and what to do. Never a reason to skip a test."""


def state_directory(config_directory: Path) -> Path:
    """What nginx sees as /run/stoker, when it exists."""
    return Path(f"{config_directory}.state")


def nginx_command(config_directory: Path, *arguments: str) -> list[str]:
    """Runs nginx with a directory seen as /etc/nginx/stoker, and with an empty /run and /tmp.

    Where there is one of the same name with ``-tls``, ``-keys`` or ``-trust`` behind it, it is seen as /etc/nginx/stoker-tls and so on.
    """
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "/bin/sh",
        "-c",
        _ENTER,
        "nginx-in-chroot",
        str(nginx_root()),
        str(config_directory),
        "/usr/sbin/nginx",
        *arguments,
    ]


@functools.cache
def nginx_root() -> Path:
    """The directory that holds the unpacked nginx; made once a machine, by whoever comes first.

    Raises NginxUnavailable.
    """
    if os.geteuid() != 0:
        raise NginxUnavailable("the gateway's tests run nginx in a chroot, which needs root; run `make test` as root")
    cache = Path(os.environ.get("STOKER_LAB_CACHE", CACHE_DEFAULT))
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / "nginx-forky"
    with (cache / "nginx-forky.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            try:
                _make(root)
            except BuildError as error:
                raise NginxUnavailable(
                    f"the gateway's tests need nginx of Debian forky, which this machine's "
                    f"mirror did not give; repair its apt configuration:\n{error}"
                ) from error
    return root


def _make(root: Path) -> None:
    """Download and unpack next to `root`, then rename: an interrupted attempt leaves nothing under the final name."""
    work = Path(tempfile.mkdtemp(prefix="nginx-forky.", dir=root.parent))
    try:
        tree = work / "root"
        _make_skeleton(tree)
        for package in AptRoot("forky", work / "apt", work / "archives").closure(list(PACKAGES)):
            _check_version(package.name, package.version)
            run(["dpkg-deb", "--extract", package.file, tree])
        tree.rename(root)
    finally:
        shutil.rmtree(work)


def _make_skeleton(tree: Path) -> None:
    """What a Debian system has before its packages: the merged /usr, mount points, users for nginx's workers."""
    for directory in (
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "run",
        "tmp",
        "proc",
        "dev",
        "var/lib/nginx",
        CONFIG_DIRECTORY[1:],
    ):
        (tree / directory).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")


def _check_version(name: str, version: str) -> None:
    found = tuple(int(part) for part in re.findall(r"\d+", version.split("-")[0]))
    if found < PACKAGES.get(name, ()):
        wanted = ".".join(map(str, PACKAGES[name]))
        raise NginxUnavailable(
            f"the mirror's Debian forky has {name} {version}; the gateway needs {wanted} or newer. "
            "The mirror is out of date: use another one in this machine's apt configuration."
        )

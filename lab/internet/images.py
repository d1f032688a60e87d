"""The registry's images: a Python base, the doubles on top of it, and a real nginx."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.internet import rootfs, wheels
from lab.internet.aptroot import Package
from lab.internet.registry import ImageConfig, Layer, write_layer
from lab.internet.shell import BuildError, run

FILES = Path(__file__).parent / "files/nginx-image"
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = "3.13"
BUSYBOX_PROGRAMS = (
    "sh",
    "cat",
    "chmod",
    "cp",
    "env",
    "grep",
    "hostname",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mv",
    "nc",
    "netstat",
    "ps",
    "rm",
    "sed",
    "sleep",
    "stat",
    "tail",
    "test",
    "touch",
    "vi",
    "wget",
)


def check_versions(packages: Sequence[Package], at_least: Mapping[str, str]) -> None:
    """Stop when a package is older than the oldest acceptable version.

    Raises:
        BuildError: names the package and both versions.
    """
    versions = {package.name: package.version for package in packages}
    for name, oldest in at_least.items():
        if subprocess.run(["dpkg", "--compare-versions", versions[name], "ge", oldest], check=False).returncode != 0:
            raise BuildError(
                f"the mirror offers {name} {versions[name]}, and the gateway needs at least {oldest}; "
                "wait for the mirror to catch up"
            )


def build_base(packages: Sequence[Package], folder: Path) -> None:
    """The layer that all doubles share: Debian with Python, bash and util-linux."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        rootfs.extract(packages, root)
        rootfs.finish(root)
        rootfs.compile_python(root, root.glob("usr/lib/python*/**/*.py"))
        layer = write_layer(root, folder, "base")
    layer.save(folder / "layer.json")


def build_double(base: Layer, double: Path, python_packages: Sequence[str], cache: Path, folder: Path) -> None:
    """The layer of an engine's double: what its install.sh and its Python packages add to the base."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        run(["tar", "-xzf", base.file, "-C", root])
        before = _snapshot(root)
        run(["sh", double / "install.sh", root], cwd=double.parents[2])
        for wheel in wheels.download(python_packages, cache, PYTHON):
            wheels.unpack(wheel, root / f"usr/local/lib/python{PYTHON}/dist-packages", root / "usr/local/bin")
        rootfs.compile_python(root, [path for path in _changed(root, before) if path.suffix == ".py"])
        layer = write_layer(root, folder, double.name, only=_changed(root, before))
    layer.save(folder / "layer.json")


def _snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Mode, size and time of everything below `root`; a directory's size and time do not count."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        found[str(path.relative_to(root))] = (
            (status.st_mode, 0, 0) if path.is_dir() else (status.st_mode, status.st_size, status.st_mtime_ns)
        )
    return found


def _changed(root: Path, before: Mapping[str, tuple[int, int, int]]) -> set[Path]:
    """What is new or other than in the snapshot `before`."""
    return {root / path for path, state in _snapshot(root).items() if before.get(path) != state}


def build_nginx(packages: Sequence[Package], folder: Path) -> None:
    """A real nginx with njs, with the file layout of the official image (user nginx, /etc/nginx/modules, logs
    to the container's output).
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        rootfs.extract(packages, root)
        rootfs.finish(root)
        rootfs.add_user(root, "nginx", 101, "/var/cache/nginx")
        _arrange_nginx(root)
        layer = write_layer(root, folder, "nginx")
    layer.save(folder / "layer.json")


def _arrange_nginx(root: Path) -> None:
    etc = root / "etc/nginx"
    for name in (
        "modules-available",
        "modules-enabled",
        "sites-available",
        "sites-enabled",
        "conf.d",
        "snippets",
    ):
        shutil.rmtree(etc / name, ignore_errors=True)
    (etc / "conf.d").mkdir()
    shutil.copyfile(FILES / "nginx.conf", etc / "nginx.conf")
    shutil.copyfile(FILES / "default.conf", etc / "conf.d/default.conf")
    shutil.copy(FILES / "docker-entrypoint.sh", root / "docker-entrypoint.sh")
    # `load_module modules/...` is looked up below the build's prefix: /usr/share/nginx in Debian, /etc/nginx
    # in the official image.
    for link in (etc / "modules", root / "usr/share/nginx/modules"):
        if link.is_symlink() or not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to("/usr/lib/nginx/modules")
    for name in ("var/lib/nginx", "var/cache/nginx", "var/log/nginx", "run"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for log, device in (("access.log", "stdout"), ("error.log", "stderr")):
        (root / "var/log/nginx" / log).unlink(missing_ok=True)
        (root / "var/log/nginx" / log).symlink_to(f"/dev/{device}")
    for program in BUSYBOX_PROGRAMS:
        link = root / "usr/bin" / program
        if not link.exists() and not link.is_symlink():
            link.symlink_to("busybox")


NGINX_CONFIG = ImageConfig(
    entrypoint=["/docker-entrypoint.sh"],
    cmd=["nginx", "-g", "daemon off;"],
    env={"PATH": BASE_PATH},
    ports=["80/tcp"],
    stop_signal="SIGQUIT",
)


def double_config(file: Path) -> ImageConfig:
    """A double's image.json; the label that says "simulated" is required.

    Raises:
        BuildError: the file is not usable; says which field.
    """
    data: dict[str, Any] = json.loads(file.read_text())
    labels = data.get("labels", {})
    if labels.get("stoker.lab") != "simulated":
        raise BuildError(
            f'{file}: labels must contain "stoker.lab": "simulated": no double may pass as the real engine'
        )
    return ImageConfig(
        entrypoint=data.get("entrypoint", []),
        cmd=data.get("cmd", []),
        env={"PATH": BASE_PATH, **data.get("env", {})},
        labels=labels,
        ports=data.get("ports", []),
        workdir=data.get("workdir", ""),
        stop_signal=data.get("stop_signal", ""),
    )

"""The machines' images: a Debian root file system plus what its kind of machine adds, cached by the hash of the inputs.

Two layers of cache: the root file system (half a minute to make) as a tar file in the cache directory, and the finished image
in the lab's Docker. A change in the driver double makes only the second one again (some seconds).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from lab.machines import daemon, rootfs, ui
from lab.machines.config import Machine
from lab.machines.errors import LabError
from lab.machines.paths import LAB, cache
from lab.machines.shell import run

REPOSITORY = "stoker-lab"


@dataclass(frozen=True)
class Kind:
    """What makes machines of one kind: a package list, and an addition with the script that installs it."""

    packages: Path
    """Debian packages besides those of image/packages-machine.txt."""
    install: Path
    """The script that lays the addition into a root file system; it gets the directory as its argument."""
    inputs: tuple[Path, ...]
    """Files and directories that the addition is made of."""


KINDS = {
    "gpu": Kind(
        packages=rootfs.IMAGE_FILES / "packages-gpu.txt",
        install=LAB / "doubles/driver/install.sh",
        inputs=(LAB / "doubles/driver",),
    ),
    "internet": Kind(
        packages=LAB / "internet/packages.txt",
        install=LAB / "internet/install.sh",
        inputs=tuple(LAB / "internet" / part for part in ("install.sh", "files/machine", "hub.py", "fault.py")),
    ),
}

_base_locks: dict[Path, threading.Lock] = {}
_base_locks_lock = threading.Lock()


def name(machine: Machine) -> str:
    """The image of a machine, with the hash of everything that it is made of as its tag."""
    key = digest(base_key(machine), *KINDS[machine.kind].inputs)
    return f"{REPOSITORY}/{machine.kind}-{machine.release}:{key}"


def base_key(machine: Machine) -> str:
    """The hash of everything that the machine's root file system is made of."""
    return digest(
        machine.release, *_packages(machine), *(rootfs.IMAGE_FILES / part for part in ("entry", "customize.sh"))
    )


def digest(*inputs: str | Path) -> str:
    """Twelve hex digits that change with any input: a text, a file, or a directory's names, contents and executable bits."""
    total = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            total.update(f"text {item}\0".encode())
            continue
        files = sorted(path for path in item.rglob("*") if path.is_file()) if item.is_dir() else [item]
        for file in files:
            if "__pycache__" in file.parts:
                continue
            executable = bool(file.stat().st_mode & 0o100)
            total.update(f"file {file.relative_to(item.parent)} {executable} {file.stat().st_size}\0".encode())
            total.update(file.read_bytes())
    return total.hexdigest()[:12]


def present(image: str) -> bool:
    """Whether the lab's Docker has the image."""
    return daemon.docker("image", "inspect", "--format", "{{.Id}}", image, check=False).returncode == 0


def build(machine: Machine) -> None:
    """Make the machine's image, unless it is there."""
    image = name(machine)
    if present(image):
        return
    base = _base(machine)
    with ui.step(f"image for {machine.kind} machines with Debian {machine.release}"):
        work = Path(tempfile.mkdtemp(prefix="work-", dir=base.parent))
        try:
            what = f"making the image {image}"
            run(["tar", "--extract", "--file", str(base), "--directory", str(work), "--numeric-owner"], what=what)
            run([str(KINDS[machine.kind].install), str(work)], what=what)
            _import(work, image)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def clean(machines: tuple[Machine, ...]) -> None:
    """Remove images and root file systems that the present inputs do not make, and leftovers of a killed build."""
    wanted = {name(machine) for machine in machines}
    listed = daemon.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{REPOSITORY}/*").stdout.split()
    old = [image for image in listed if image not in wanted]
    if old:
        daemon.docker("image", "rm", *old, check=False)  # one that a machine still runs on stays, and goes next time
    bases = {_base_file(machine) for machine in machines}
    for path in _folder().iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path not in bases:
            path.unlink()


def _packages(machine: Machine) -> list[str]:
    lists = (rootfs.IMAGE_FILES / "packages-machine.txt", KINDS[machine.kind].packages)
    return sorted({name for file in lists for name in rootfs.packages(file)})


def _folder() -> Path:
    return cache() / "images"


def _base_file(machine: Machine) -> Path:
    return _folder() / f"{machine.kind}-{machine.release}-{base_key(machine)}.tar"


def _base(machine: Machine) -> Path:
    """The machine's root file system, made now unless it is in the cache."""
    tar = _base_file(machine)
    tar.parent.mkdir(parents=True, exist_ok=True)
    with _base_locks_lock:
        lock = _base_locks.setdefault(tar, threading.Lock())
    with lock:
        if not tar.exists():
            with ui.step(f"Debian {machine.release} for {machine.kind} machines (mmdebstrap)"):
                rootfs.make(machine.release, _packages(machine), tar)
    return tar


def _import(directory: Path, image: str) -> None:
    """Hand a directory to the lab's Docker as an image, through a pipe."""
    packer = subprocess.Popen(
        ["tar", "--create", "--numeric-owner", "--xattrs", "--directory", str(directory), "."],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert packer.stdout is not None
    with packer.stdout:
        run(
            [daemon.client(), "import", "-", image],
            stdin=packer.stdout,
            env={"DOCKER_HOST": daemon.DOCKER_HOST},
            what=f"importing the image {image}",
        )
    if packer.wait() != 0:
        raise LabError(f"packing the image {image}: tar ended with exit code {packer.returncode}; is the disk full?")

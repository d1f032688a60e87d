"""NVIDIA's driver repositories for Debian in the lab: the double of lab/doubles/driver under the real package names.

Beside the branch that is wanted lies a later one, and the packages ask for "580 or later", as NVIDIA's do: only a pin keeps the later
one away. The module cannot be loaded before the next boot, as where nouveau holds the card.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.internet.debpack import Deb
from lab.internet.debrepo import entry_of, write_flat
from lab.internet.keys import SigningKey

MAINTAINER = "Stoker lab (simulated) <lab@internet.test>"
VERSIONS = ("580.173.02-1", "590.48.01-1")
KERNEL_VERSION = "6.12.1-1"

#: Directory of a release -> name of its key's file, as at NVIDIA.
RELEASES = {"debian12/x86_64": "3bf863cc.pub", "debian13/x86_64": "8793F200.pub"}

_LOADS_AT_BOOT = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
    mkdir -p /run/lab-gpu
    : >/run/lab-gpu/needs-reboot
fi
"""


@dataclass(frozen=True)
class Recipe:
    """A package: what it needs, the files of the driver's double that it holds, and its postinst."""

    name: str
    summary: str
    depends: str = ""
    files: tuple[str, ...] = ()
    postinst: str = ""


RECIPES = (
    Recipe(
        "nvidia-driver-cuda",
        "NVIDIA driver, the part for computing",
        "python3, libcuda1 (>= 580.65.06), nvidia-kernel-dkms (>= 580.65.06)",
        ("usr/bin/nvidia-smi",),
    ),
    Recipe("nvidia-kernel-dkms", "NVIDIA kernel module", "linux-headers-amd64", postinst=_LOADS_AT_BOOT),
    Recipe("libcuda1", "NVIDIA CUDA driver library"),
)

#: Debian's own, which the lab's part of Debian does not have: nothing in a lab machine boots a kernel.
KERNEL = (Recipe("linux-image-amd64", "Linux kernel"), Recipe("linux-headers-amd64", "headers of the Linux kernel"))


def build_repositories(double: Path, root: Path, key: SigningKey) -> None:
    """Fill `root`: a directory for each release with its key, its packages and their index. `double` is laid out like a host's root."""
    wanted = [(recipe, version) for recipe in RECIPES for version in VERSIONS]
    wanted += [(recipe, KERNEL_VERSION) for recipe in KERNEL]
    for directory, key_file in RELEASES.items():
        folder = root / directory
        debs = [_build(recipe, version, double, folder) for recipe, version in wanted]
        write_flat(folder, [entry_of(deb, folder) for deb in debs], key, "NVIDIA")
        (folder / key_file).write_text(key.armored())


def _build(recipe: Recipe, version: str, double: Path, folder: Path) -> Path:
    tree = folder / ".tree"
    tree.mkdir(parents=True)
    for path in recipe.files:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(double / path, tree / path)
        (tree / path).chmod(0o755)
    fields = {
        "Maintainer": MAINTAINER,
        "Section": "non-free/libs",
        "Priority": "optional",
        "Depends": recipe.depends,
        "Description": f"{recipe.summary} (simulated)\n A double for the lab; it drives no GPU.",
    }
    deb = Deb(recipe.name, version, fields, {"postinst": recipe.postinst} if recipe.postinst else {}).build(
        tree, folder
    )
    shutil.rmtree(tree)
    return deb

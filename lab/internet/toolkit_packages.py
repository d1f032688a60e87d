"""NVIDIA's container toolkit repository for the lab: the doubles of lab/doubles/toolkit under the real
package names and layout.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.internet.debpack import Deb, unit_scripts
from lab.internet.debrepo import entry_of, write_flat
from lab.internet.keys import SigningKey
from lab.internet.shell import BuildError

URL = "http://packages.internet.test/libnvidia-container"
MAINTAINER = "Stoker lab (simulated) <lab@internet.test>"
CDI_UNITS = ("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service")


@dataclass(frozen=True)
class Recipe:
    """A package of the toolkit: the paths it holds (patterns; the first recipe that matches takes a file) and
    its relations.
    """

    name: str
    paths: tuple[str, ...]
    depends: str
    summary: str
    scripts: Mapping[str, str]


# Which program lies in which package, and the relations: the toolkit's packaging/debian/control (v1.20.0).
RECIPES = (
    Recipe(
        "nvidia-container-toolkit",
        ("usr/bin/nvidia-container-runtime-hook",),
        "nvidia-container-toolkit-base (= {version}), libnvidia-container-tools (>= {version}), "
        "libnvidia-container-tools (<< 2.0.0)",
        "NVIDIA Container toolkit (simulated)",
        {},
    ),
    Recipe(
        "libnvidia-container-tools",
        ("usr/bin/nvidia-container-cli",),
        "libnvidia-container1 (>= {version})",
        "NVIDIA container runtime library, command-line tools (simulated)",
        {},
    ),
    Recipe(
        "libnvidia-container1",
        ("usr/lib/x86_64-linux-gnu/*",),
        "libc6 (>= 2.34)",
        "NVIDIA container runtime library (simulated)",
        {},
    ),
    Recipe(
        "nvidia-container-toolkit-base",
        ("*",),
        "python3",
        "NVIDIA Container Toolkit Base (simulated)",
        unit_scripts(CDI_UNITS, restart_on_upgrade=False),
    ),
)


def assign(paths: list[str]) -> dict[str, list[str]]:
    """Package name -> the paths of the tree that it holds."""
    found: dict[str, list[str]] = {recipe.name: [] for recipe in RECIPES}
    for path in paths:
        owner = next(recipe for recipe in RECIPES if any(fnmatch.fnmatch(path, pattern) for pattern in recipe.paths))
        found[owner.name].append(path)
    return found


def build_repository(programs: Path, version: str, root: Path, key: SigningKey) -> None:
    """Fill `root` from the tree `programs` (laid out like a host's root): the key, the list file, the
    packages and their index.
    """
    folder = root / "stable/deb/amd64"
    files = [
        str(file.relative_to(programs))
        for file in sorted(programs.rglob("*"))
        if (file.is_file() or file.is_symlink()) and "__pycache__" not in file.parts
    ]
    if not files:
        raise BuildError(f"{programs} holds no programs to pack")
    owners = assign(files)
    debs = []
    for recipe in RECIPES:
        tree = root / f".{recipe.name}"
        tree.mkdir()
        for path in owners[recipe.name]:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(programs / path, tree / path, follow_symlinks=False)
        fields = {
            "Maintainer": MAINTAINER,
            "Section": "utils",
            "Priority": "optional",
            "Depends": recipe.depends.format(version=version),
            "Description": f"{recipe.summary}\n A double for the lab; it drives no GPU.",
        }
        debs.append(Deb(recipe.name, version, fields, dict(recipe.scripts)).build(tree, folder))
        shutil.rmtree(tree)
    write_flat(folder, [entry_of(deb, folder) for deb in debs], key, "https://nvidia.github.io")
    (root / "gpgkey").write_text(key.armored())
    (root / "stable/deb/nvidia-container-toolkit.list").write_text(
        f"deb {URL}/stable/deb/$(ARCH) /\n#deb {URL}/experimental/deb/$(ARCH) /\n"
    )

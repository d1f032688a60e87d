"""Debian root file systems, made by mmdebstrap from this computer's own mirror."""

from __future__ import annotations

from pathlib import Path

from lab.internet.aptroot import machine_mirror
from lab.internet.shell import BuildError
from lab.machines.errors import LabError
from lab.machines.shell import run

IMAGE_FILES = Path(__file__).parent / "image"

# How this computer fetches (proxy, retries, a mirror that is a snapshot) holds for the machines' packages too.
# What else its apt is told to do does not.
FETCHING = ("Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::Check-Valid-Until", "Acquire::Check-Date")


def packages(file: Path) -> list[str]:
    """The names in a package list: one a line, # starts a comment."""
    names = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [name for name in names if name]


def make(release: str, include: list[str], tar: Path) -> None:
    """Make the root file system of a Debian release with the packages in `include`, as a tar file.

    The file appears under its name only when it is complete. Raises LabError with what mmdebstrap said.
    """
    try:
        mirror = machine_mirror()
    except BuildError as error:
        raise LabError(str(error)) from None
    part = tar.with_suffix(".part")
    argv = [
        "nice",
        "-n",
        "5",
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        "--architectures=amd64",
    ]
    argv += [f"--include={','.join(include)}", f'--customize-hook={IMAGE_FILES}/customize.sh "$1"']
    argv += [f"--aptopt={option}" for option in fetching_options()]
    argv += [release, str(part), f"deb [signed-by={mirror.signed_by}] {mirror.uri} {release} main"]
    run(argv, what=f"making the Debian {release} root file system")
    part.replace(tar)


def fetching_options() -> list[str]:
    """The lines of this computer's apt configuration that say how to fetch."""
    dump = run(
        ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n'], what="reading apt's configuration"
    ).stdout
    return [line for line in dump.splitlines() if line.startswith(FETCHING)]

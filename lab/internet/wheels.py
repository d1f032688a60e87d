"""Python packages for an image: downloaded by pip for the image's Python, unpacked as files."""

from __future__ import annotations

import configparser
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from lab.internet.shell import BuildError, run

# pip does not conclude from one to another. Debian 12 has glibc 2.36.
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)),
    *(f"manylinux{year}_x86_64" for year in (2014, 2010, 1)),
    "linux_x86_64",
    "any",
)
PROJECT = Path(__file__).resolve().parents[2]


def python_with_pip() -> str:
    """The project's virtual environment has pip; the machine's own Python may not."""
    for candidate in (PROJECT / ".venv/bin/python", Path(sys.executable)):
        try:
            run([candidate, "-m", "pip", "--version"])
        except BuildError:
            continue
        return str(candidate)
    raise BuildError("no pip found: neither the project's .venv nor this Python has it; `make env` makes the former")


def download(requirements: Sequence[str], cache: Path, python: str, find_links: str = "") -> list[Path]:
    """The wheels of `requirements` (each "name==version", dependencies listed too) for Python `python`, as
    "3.13".

    What `cache` already has is not asked for again. `find_links`: a folder or page where pip is to look too.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [requirement for requirement in requirements if not _find(cache, requirement, python)]
    if missing:
        abi = f"cp{python.replace('.', '')}"
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        run(
            [
                python_with_pip(),
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--python-version",
                python,
                "--implementation",
                "cp",
                "--abi",
                abi,
                "--abi",
                "abi3",
                "--abi",
                "none",
                *platforms,
                *(["--find-links", find_links] if find_links else []),
                "--dest",
                cache,
                *missing,
            ]
        )
    return [wheel for requirement in requirements if (wheel := _find(cache, requirement, python))]


def _find(cache: Path, requirement: str, python: str) -> Path | None:
    """The wheel in `cache`. One cache serves several Pythons: a wheel of compiled code for another one does not count."""
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_').lower()}-{version}-"
    fits = (f"-cp{python.replace('.', '')}-", "-abi3-", "-none-")
    return next(
        (
            wheel
            for wheel in cache.glob("*.whl")
            if wheel.name.lower().startswith(pattern) and any(tag in wheel.name for tag in fits)
        ),
        None,
    )


def unpack(wheel: Path, site: Path, programs: Path) -> None:
    """Put a wheel's modules into `site` and its console programs into `programs`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".data/" not in name.partition("/")[0] + "/"]
        archive.extractall(site, names)
        for name in names:
            if name.endswith(".dist-info/entry_points.txt"):
                for program, target in console_scripts(archive.read(name).decode()).items():
                    _write_program(programs / program, target)


def console_scripts(entry_points: str) -> dict[str, str]:
    """Program name -> module:function, from the text of an entry_points.txt."""
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(entry_points)
    return dict(parser["console_scripts"]) if parser.has_section("console_scripts") else {}


def _write_program(file: Path, target: str) -> None:
    module, _, function = target.split(" ")[0].partition(":")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n")
    file.chmod(0o755)

"""A small index of Python packages as plain files (PEP 503): what the image of Transformers installs.

`transformers` and `accelerate` are doubles, made into wheels here; the rest are the released wheels. Versions are those that images/transformers
pins: an image that asks for another one finds nothing, as it should be noticed.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab.internet import wheels
from lab.internet.shell import BuildError

#: Double -> what it requires, as in the METADATA of a wheel. The real ones want more, which nothing in the lab would use.
REQUIRES = {
    "transformers": (
        "huggingface-hub",
        "tokenizers",
        *(f"{name}; extra == 'serving'" for name in ("accelerate", "starlette", "uvicorn")),
    ),
    "accelerate": ("torch>=2.0.0", "huggingface-hub"),
}
SCRIPTS = {"transformers": "[console_scripts]\ntransformers = lab_transformers.cli:main\n"}


def pins(*files: Path) -> dict[str, str]:
    """Name -> version of every ``name==version`` in requirements files; an extra is left out."""
    lines = (line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name.partition("[")[0]): version for name, version in pairs}


def normal(name: str) -> str:
    """As PEP 503 compares names."""
    return name.replace("_", "-").replace(".", "-").lower()


def build(
    packages: Sequence[str], pinned: Mapping[str, str], modules: Mapping[str, Path], cache: Path, folder: Path
) -> None:
    """Fill `folder` with simple/. `packages`: names of released wheels; `modules`: name in the double's wheel -> its directory.

    Raises:
        BuildError: a package is not pinned, or cannot be had.
    """
    lacking = sorted({normal(name) for name in (*packages, *REQUIRES)} - set(pinned))
    if lacking:
        raise BuildError(f"images/transformers pins no version of {', '.join(lacking)}")
    root = folder / "simple"
    for name in packages:
        (wheel,) = wheels.download([f"{name}=={pinned[normal(name)]}"], cache, "3.13")
        (root / normal(name)).mkdir(parents=True)
        shutil.copyfile(wheel, root / normal(name) / wheel.name)
    for name, requires in REQUIRES.items():
        (root / name).mkdir(parents=True)
        pack(root / name, name, pinned[name], requires, SCRIPTS.get(name, ""), modules if name in SCRIPTS else {})
    write_pages(root)


def pack(
    folder: Path, name: str, version: str, requires: Sequence[str], scripts: str, modules: Mapping[str, Path]
) -> Path:
    """A wheel of pure Python in `folder`."""
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Summary: simulated by the Stoker lab"]
    metadata += ["Provides-Extra: serving", *(f"Requires-Dist: {one}" for one in requires)]
    files = {f"{info}/METADATA": "\n".join([*metadata, ""]).encode()}
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: stoker lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if scripts:
        files[f"{info}/entry_points.txt"] = scripts.encode()
    for module, source in modules.items():
        files |= {f"{module}/{file.name}": file.read_bytes() for file in sorted(source.glob("*.py"))}
    record = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), data)
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def write_pages(root: Path) -> None:
    """The pages of the index: one that lists the packages, one of each with its files and their checksums."""
    projects = sorted(folder for folder in root.iterdir() if folder.is_dir())
    (root / "index.html").write_text(_page(f'<a href="{one.name}/">{one.name}</a>' for one in projects))
    for project in projects:
        files = ((file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in sorted(project.glob("*.whl")))
        (project / "index.html").write_text(
            _page(f'<a href="{name}#sha256={digest}">{name}</a>' for name, digest in files)
        )


def _page(links: Iterable[str]) -> str:
    body = "\n".join(f"{link}<br>" for link in links)
    return f"<!DOCTYPE html>\n<html><body>\n{body}\n</body></html>\n"

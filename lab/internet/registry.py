"""Container images written straight into the storage layout of docker-registry (distribution 2.8): no daemon,
no push.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lab.internet.shell import BuildError

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
# The same of the OCI image specification 1.1, which knows layers packed by zstd: five times faster for gigabytes.
OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
OCI_ZSTD_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"
# One fixed moment (2026-01-01), so that the same files make the same digest.
CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Layer:
    """A compressed layer: its blob file, and the digests of the compressed and the plain tar."""

    file: Path
    digest: str
    diff_id: str
    size: int
    media_type: str = LAYER_TYPE

    def save(self, file: Path) -> None:
        """Write what `load` needs to find the layer again (the blob's path is relative to `file`)."""
        file.write_text(
            json.dumps(
                {
                    "file": os.path.relpath(self.file, file.parent),
                    "digest": self.digest,
                    "diff_id": self.diff_id,
                    "size": self.size,
                    "media_type": self.media_type,
                }
            )
        )

    @staticmethod
    def load(file: Path) -> Layer:
        """The layer that `save` wrote to `file`."""
        data = json.loads(file.read_text())
        return Layer(file.parent / data["file"], data["digest"], data["diff_id"], data["size"], data["media_type"])


@dataclass(frozen=True)
class ImageConfig:
    """What `docker inspect` shows under Config, as far as the lab's images need it."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[str] = ()
    workdir: str = ""
    stop_signal: str = ""

    def render(self) -> dict[str, Any]:
        """The Config object of the image's JSON."""
        config: dict[str, Any] = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Env": [f"{key}={value}" for key, value in self.env.items()],
            "Labels": dict(self.labels),
            "ExposedPorts": {port: {} for port in self.ports},
            "WorkingDir": self.workdir,
            "StopSignal": self.stop_signal,
        }
        return {key: value for key, value in config.items() if value}


class _HashingWriter:
    """A file to write to that hashes and counts what passes through."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._target.write(data)
        return len(data)

    def flush(self) -> None:
        self._target.flush()

    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def write_layer(
    tree: Path, folder: Path, name: str, only: set[Path] | None = None, compress: Literal["gzip", "zstd"] = "gzip"
) -> Layer:
    """Pack `tree` as a layer in `folder`: sorted, owned by root, times 0, compressed lightly (pulls are local).

    `only`: the paths to pack (a directory stands for itself, not for its content); None packs everything.
    `compress`: zstd for gigabytes; Docker 23 and later read it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.tar.{'gz' if compress == 'gzip' else 'zst'}"
    with file.open("wb") as opened:
        packed = _HashingWriter(opened)
        with _gzip(packed) if compress == "gzip" else _zstd(packed) as compressed:
            plain = _HashingWriter(compressed)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
                tar.add(tree, arcname=".", recursive=False, filter=_normalise)
                for path in sorted(tree.rglob("*") if only is None else only):
                    tar.add(path, arcname=str(path.relative_to(tree)), recursive=False, filter=_normalise)
    media_type = LAYER_TYPE if compress == "gzip" else OCI_ZSTD_LAYER_TYPE
    return Layer(file, packed.digest(), plain.digest(), packed.size, media_type)


@contextmanager
def _gzip(target: _HashingWriter) -> Iterator[Any]:
    with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=target, mtime=0) as compressed:  # type: ignore[call-overload]
        yield compressed


@contextmanager
def _zstd(target: _HashingWriter) -> Iterator[Any]:
    """The zstd program on all cores. Its output does not depend on their number."""
    with (
        subprocess.Popen(["zstd", "-q", "-1", "-T0", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program,
        ThreadPoolExecutor(1) as reader,
    ):
        assert program.stdin is not None
        assert program.stdout is not None
        done = reader.submit(shutil.copyfileobj, program.stdout, target)
        try:
            yield program.stdin
        finally:
            program.stdin.close()
            done.result()
    if program.returncode:
        raise BuildError(f"zstd ended with status {program.returncode} while it packed a layer")


def _normalise(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def image_json(config: ImageConfig, layers: Sequence[Layer]) -> bytes:
    """The image's configuration blob."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": config.render(),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": CREATED, "created_by": "stoker lab"} for _ in layers],
        },
        sort_keys=True,
    ).encode()


def manifest_json(config: bytes, layers: Sequence[Layer]) -> bytes:
    """The image manifest: Docker's schema 2, or OCI's where a layer is packed by zstd."""
    oci = any(layer.media_type == OCI_ZSTD_LAYER_TYPE for layer in layers)
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST_TYPE if oci else MANIFEST_TYPE,
            "config": {
                "mediaType": OCI_CONFIG_TYPE if oci else CONFIG_TYPE,
                "size": len(config),
                "digest": digest_of(config),
            },
            "layers": [{"mediaType": layer.media_type, "size": layer.size, "digest": layer.digest} for layer in layers],
        },
        indent=2,
    ).encode()


def digest_of(content: bytes) -> str:
    """sha256:<hex> of `content`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def add_image(storage: Path, name: str, tags: Sequence[str], config: ImageConfig, layers: Sequence[Layer]) -> str:
    """Put an image into the registry's `storage` under `name` with `tags`; return the manifest's digest.

    Layer files are hard-linked: storage and layers must lie on one file system.
    """
    root = storage / "docker/registry/v2"
    repository = root / "repositories" / name
    image = image_json(config, layers)
    manifest = manifest_json(image, layers)
    for content in (image, manifest):
        blob = _blob(root, digest_of(content))
        blob.write_bytes(content)
    for layer in layers:
        blob = _blob(root, layer.digest)
        if not blob.exists():
            blob.hardlink_to(layer.file)
    for digest in [digest_of(image), *(layer.digest for layer in layers)]:
        _link(repository / "_layers" / digest.replace(":", "/"), digest)
    digest = digest_of(manifest)
    _link(repository / "_manifests/revisions" / digest.replace(":", "/"), digest)
    for tag in tags:
        _link(repository / "_manifests/tags" / tag / "current", digest)
        _link(repository / "_manifests/tags" / tag / "index" / digest.replace(":", "/"), digest)
    return digest


def _blob(root: Path, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    folder = root / "blobs" / algorithm / value[:2] / value
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "data"


def _link(folder: Path, digest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link").write_text(digest)

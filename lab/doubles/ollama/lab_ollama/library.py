"""Pulling from a registry, with the progress lines of `POST /api/pull`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

from lab_gpu import settings

from lab_ollama.names import REGISTRY, Name
from lab_ollama.store import MODEL_LAYER, Store

STEPS = 12  # progress lines for a layer whose real size takes time


class PullError(Exception):
    """The pull failed; the text is Ollama's."""


def registry_url(name: Name, *, insecure: bool) -> str:
    """Where the registry of a name answers: https, or http for an insecure pull.

    OLLAMA_LAB_LIBRARY, a URL, stands for the default registry in tests.
    """
    library = os.environ.get("OLLAMA_LAB_LIBRARY") if name.host == REGISTRY else None
    return library or f"{'http' if insecure else 'https'}://{name.host}"


async def pull(store: Store, name: Name, *, insecure: bool = False) -> AsyncIterator[dict[str, Any]]:
    """Progress lines of a pull, in order; the last is {"status": "success"}. Raises PullError."""
    yield {"status": "pulling manifest"}
    base = f"{registry_url(name, insecure=insecure)}/v2/{name.namespace}/{name.model}"
    raw = await _get(f"{base}/manifests/{name.tag}", missing="pull model manifest: file does not exist")
    manifest = json.loads(raw)
    config_layer = manifest["config"]
    config = json.loads(await _get(f"{base}/blobs/{config_layer['digest']}", missing="file does not exist"))
    real_size = int((config.get("lab") or {}).get("size_bytes", 0))
    for layer in [*manifest["layers"], config_layer]:
        size = real_size if layer["mediaType"] == MODEL_LAYER and real_size else int(layer["size"])
        async for line in _pull_layer(store, base, layer["digest"], size, name.model):
            yield line
    yield {"status": "verifying sha256 digest"}
    for layer in [*manifest["layers"], config_layer]:
        found = "sha256:" + hashlib.sha256(store.blob(layer["digest"]).read_bytes()).hexdigest()
        if found != layer["digest"]:
            store.blob(layer["digest"]).unlink()
            raise PullError(f"digest mismatch, file must be downloaded again: want {layer['digest']}, got {found}")
    yield {"status": "writing manifest"}
    store.write_manifest(name, manifest)
    yield {"status": "success"}


async def _pull_layer(store: Store, base: str, digest: str, size: int, name: str) -> AsyncIterator[dict[str, Any]]:
    """Progress lines of one layer. One that stands for gigabytes takes its time; `size` is what it stands for."""
    head = {"status": f"pulling {digest.removeprefix('sha256:')[:12]}", "digest": digest, "total": size}
    path = store.blob(digest)
    if path.exists():
        yield {**head, "completed": size}
        return
    yield head
    content = await _get(f"{base}/blobs/{digest}", missing="file does not exist")
    steps = STEPS if size > len(content) else 1
    partial = path.with_name(path.name + "-partial")
    partial.write_bytes(b"")
    for step in range(1, steps + 1):
        if settings.fault(name)[0] == "pull-fails":
            raise PullError(f'max retries exceeded: Get "{base}/blobs/{digest}": read: connection reset by peer')
        if steps > 1:
            await asyncio.sleep(settings.number("pull_seconds", 1.5) / steps)
        try:
            with open(partial, "r+b") as handle:
                handle.write(content[: len(content) * step // steps])
        except FileNotFoundError as error:  # another server pruned it, which is what OLLAMA_NOPRUNE prevents
            raise PullError(f"open {partial}-0: no such file or directory") from error
        if step == steps:
            partial.rename(path)
        yield {**head, "completed": size * step // steps}


async def _get(url: str, *, missing: str) -> bytes:
    try:
        return await asyncio.to_thread(_fetch, url)
    except urllib.error.HTTPError as error:
        raise PullError(missing if error.code == 404 else f"{error.code}: {error.reason}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError):
            raise PullError(missing) from error
        raise PullError(f'pull model manifest: Get "{url}": dial tcp: {_reason(url, error.reason)}') from error


def _reason(url: str, reason: object) -> str:
    host = url.split("/")[2]
    if isinstance(reason, socket.gaierror):
        return f"lookup {host.split(':')[0]}: no such host"
    if isinstance(reason, OSError):
        return f"connect: {(reason.strerror or str(reason)).lower()}"
    return str(reason)


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        content: bytes = response.read()
        return content

"""Where a host has to download from, by what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from stoker.facts.manifest import is_complete
from stoker.facts.state import HostState
from stoker.models.gguf import names_of
from stoker.spec.fleet import Host
from stoker.spec.own_images import own_name
from stoker.spec.settings import HubModel
from stoker.steps import build, driver, models, ollama, sources


def _registry(image: str) -> str:
    """The host of an image's registry; empty for Docker Hub's, which has mirrors. As Docker tells one from a part of the name."""
    first, slash, _ = image.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first if is_host and first != "docker.io" else ""


def _was_copied(model: HubModel, files: Mapping[str, int]) -> bool:
    """Whether somebody put the model there; then the fetch checks its structure, without the hub if need be."""
    return all(name in files for name in (names_of(model.file) if model.file else ["config.json"]))


def addresses(host: Host, state: HostState) -> dict[str, tuple[str, int]]:
    """URL -> address and port to try, only for what has to be downloaded. Through a proxy the proxy is what counts."""
    mirrors, proxy = host.settings.mirrors, host.settings.proxy
    urls: list[str] = []
    if sources.actions(host, state):
        urls += [mirrors.container_toolkit] if host.gpus else []
        urls += [mirrors.docker] if host.settings.docker.source == "docker-ce" else []
        urls += [mirrors.cuda] if driver.release(host, state) else []
    built = build.lacking(host, state)
    pulled = [image for image in host.images() if not own_name(image)] + [build.base(image) for image in built]
    for registry in dict.fromkeys(_registry(image) for image in pulled if not state.images.get(image)):
        urls += [f"https://{registry}"] if registry else mirrors.registries or ["https://registry-1.docker.io"]
    if built:
        urls.append(mirrors.python)
    # A model that somebody copied there is checked without the hub, too.
    if any(
        not is_complete(directory, model, state) and not _was_copied(model, state.model_files.get(directory, {}))
        for directory, (model, _) in models.wanted(host).items()
    ):
        urls.append(mirrors.hub)
    if any(entry.base_manifest not in state.files for entry in ollama.served(host)):
        urls.append(mirrors.ollama or "https://registry.ollama.ai")
    found = {}
    for url in dict.fromkeys(urls):
        direct = urlsplit(url).hostname in proxy.no_proxy
        parts = urlsplit(url if direct else (proxy.https if url.startswith("https") else proxy.http) or url)
        found[url] = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    return found

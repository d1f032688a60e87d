"""Model files: on the host that needs them, complete, verified once and then recognised by their manifest."""

from __future__ import annotations

import shlex

from stoker.facts.manifest import MANIFEST, is_complete
from stoker.facts.state import HostState
from stoker.models.gguf import parts_of
from stoker.spec.fleet import Host
from stoker.spec.settings import HubModel
from stoker.steps.action import Action, File, write_files
from stoker.steps.layout import SECRETS

OFFICIAL_HUB = "https://huggingface.co"
HUB_ENVIRONMENT = f"{SECRETS}/hub.env"


def wanted(host: Host) -> dict[str, tuple[HubModel, str]]:
    """Directory -> the model that belongs there and the image that fetches it."""
    models = {}
    for stack, instance in host.instances():
        model = host.model_of(instance)
        if isinstance(model, HubModel):
            models[f"{stack.model_directory}/{model.directory}"] = (model, host.fetching_image(instance))
    return models


def manifests(host: Host) -> list[str]:
    return [f"{directory}/{MANIFEST}" for directory in wanted(host)]


def actions(host: Host, state: HostState, hub_token: str | None) -> list[Action]:
    """``hub_token`` is the secret itself; it goes into a private file on the host, never into a command line."""
    lacking = {
        directory: entry for directory, entry in wanted(host).items() if not is_complete(directory, entry[0], state)
    }
    if not lacking:
        return []
    found = []
    if hub_token:
        file = File(HUB_ENVIRONMENT, f"HF_TOKEN={hub_token}\n", "600")
        if not file.is_on(state):
            script, stdin = write_files([file], SECRETS)
            found.append(Action(f"write the hub token to {HUB_ENVIRONMENT}", script, stdin))
    found += [_fetch(host, directory, model, image, bool(hub_token)) for directory, (model, image) in lacking.items()]
    return found


def _fetch(host: Host, directory: str, model: HubModel, image: str, has_token: bool) -> Action:
    parent, _, name = directory.rpartition("/")
    proxy = host.settings.proxy
    environment = {
        "HF_ENDPOINT": host.settings.mirrors.hub,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if host.settings.mirrors.hub != OFFICIAL_HUB:
        environment["HF_HUB_DISABLE_XET"] = "1"  # Xet has servers of its own, which a mirror does not stand for
    environment |= {key: value for key, value in (("HTTP_PROXY", proxy.http), ("HTTPS_PROXY", proxy.https)) if value}
    if proxy.http or proxy.https:
        environment["NO_PROXY"] = ",".join(proxy.no_proxy)
    command = ["docker", "run", "--rm", "--name", f"stoker-fetch-{name}"[:63], "--entrypoint", "python3"]
    for key, value in environment.items():
        command += ["--env", f"{key}={value}"]
    if has_token:
        command += ["--env-file", HUB_ENVIRONMENT]
    command += [
        "--volume",
        f"{parent}:/models",
        "--volume",
        f"{host.settings.stack_root}/bin:/stoker:ro",
        image,
        "/stoker/fetch-model.py",
        f"/models/{name}",
        model.repository,
        model.revision,
    ]
    if model.file:
        command += ["--only", parts_of(model.file)]
    for pattern in () if model.file else model.exclude:
        command += ["--exclude", pattern]
    return Action(f"bring {model.repository} to {directory} and verify it", shlex.join(command), long=True)

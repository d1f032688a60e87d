"""The manifest beside a model's files: what was fetched, file by file."""

from __future__ import annotations

import json

from stoker.facts.state import HostState
from stoker.models.gguf import names_of
from stoker.spec.settings import HubModel

MANIFEST = ".stoker-manifest.json"


def is_complete(directory: str, model: HubModel, state: HostState) -> bool:
    """Whether the manifest is this model's and every file that it lists is there in full length."""
    try:
        manifest = json.loads(state.contents.get(f"{directory}/{MANIFEST}", ""))
        files = {path: entry["size"] for path, entry in manifest["files"].items()}
        same = (manifest["repository"], manifest["revision"]) == (model.repository, model.revision)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    if model.file and not set(names_of(model.file)) <= set(files):
        return False
    there = state.model_files.get(directory, {})
    return same and all(there.get(path) == size for path, size in files.items())

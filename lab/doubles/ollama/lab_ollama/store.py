"""Models on disk in Ollama's layout: manifests/<registry>/<namespace>/<model>/<tag> and blobs/sha256-<hex>."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab_ollama.names import Name

MODEL_LAYER = "application/vnd.ollama.image.model"
PARAMS_LAYER = "application/vnd.ollama.image.params"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class StoredModel:
    """A model that is on disk."""

    name: Name
    digest: str
    manifest: dict[str, Any]
    config: dict[str, Any]
    parameters: dict[str, Any]
    modified: str

    @property
    def simulated(self) -> dict[str, Any]:
        """What the real model is like: size_bytes, context_length, embedding_length."""
        about: dict[str, Any] = self.config.get("lab") or {}
        return about

    @property
    def size(self) -> int:
        """Bytes of all layers, the real model's for the simulated layer."""
        sizes = [layer["size"] for layer in self.manifest["layers"] if layer["mediaType"] != MODEL_LAYER]
        model = sum(layer["size"] for layer in self.manifest["layers"] if layer["mediaType"] == MODEL_LAYER)
        total: int = sum(sizes) + self.simulated.get("size_bytes", model) + self.manifest["config"]["size"]
        return total

    @property
    def model_blob(self) -> str:
        """Digest of the weights."""
        return next((layer["digest"] for layer in self.manifest["layers"] if layer["mediaType"] == MODEL_LAYER), "")

    def details(self) -> dict[str, Any]:
        config = self.config
        return {
            "parent_model": "",
            "format": config.get("model_format", "gguf"),
            "family": config.get("model_family", "bert"),
            "families": config.get("model_families", ["bert"]),
            "parameter_size": config.get("model_type", ""),
            "quantization_level": config.get("file_type", ""),
        }


class Store:
    """The models directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.manifests = root / "manifests"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.manifests.mkdir(parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        return self.blobs / digest.replace(":", "-")

    def manifest_path(self, name: Name) -> Path:
        return self.manifests / name.host / name.namespace / name.model / name.tag

    def read(self, name: Name) -> StoredModel | None:
        """The model, or None when it is not here (or half)."""
        path = self.manifest_path(name)
        try:
            raw = path.read_bytes()
            manifest = json.loads(raw)
            config = json.loads(self.blob(manifest["config"]["digest"]).read_bytes())
            parameters: dict[str, Any] = {}
            for layer in manifest["layers"]:
                if layer["mediaType"] == PARAMS_LAYER:
                    parameters.update(json.loads(self.blob(layer["digest"]).read_bytes()))
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
            return None
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        stamp = changed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return StoredModel(name, hashlib.sha256(raw).hexdigest(), manifest, config, parameters, stamp)

    def all(self) -> list[StoredModel]:
        """Every whole model, the newest first."""
        models = []
        for path in self.manifests.glob("*/*/*/*"):
            model = self.read(Name(path.parts[-3], path.parts[-2], path.parts[-1], path.parts[-4]))
            if model:
                models.append(model)
        return sorted(models, key=lambda model: model.modified, reverse=True)

    def write_manifest(self, name: Name, manifest: dict[str, Any]) -> None:
        path = self.manifest_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest, separators=(",", ":")), encoding="utf-8")

    def add_blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Store bytes; returns the layer entry."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        path = self.blob(digest)
        if not path.exists():
            path.write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def delete(self, name: Name) -> None:
        """Remove a model's manifest and the blobs nobody else uses."""
        self.manifest_path(name).unlink()
        self.prune()

    def copy(self, source: Name, target: Name) -> None:
        path = self.manifest_path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.manifest_path(source), path)

    def prune(self) -> int:
        """Remove blobs that no manifest names, partial downloads of other servers included; returns how many."""
        used: set[str] = set()
        for path in self.manifests.glob("*/*/*/*"):
            try:
                manifest = json.loads(path.read_bytes())
            except ValueError:
                continue
            used |= {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
        removed = 0
        for path in self.blobs.iterdir():
            whole = re.fullmatch(r"sha256-[0-9a-f]{64}", path.name)
            if not whole or path.name.replace("-", ":", 1) not in used:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


def models_root() -> Path:
    """OLLAMA_MODELS, else ~/.ollama/models."""
    return Path(os.environ.get("OLLAMA_MODELS") or Path(os.environ.get("HOME", "/root")) / ".ollama" / "models")

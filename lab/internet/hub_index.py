"""The hub's index: for each model repository its revision and its files with the checksums that the hub's API
states.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from pathlib import Path
from typing import Any

# What model repositories keep in LFS: weights, and the large tokenizer files.
LFS_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.model", "*.gguf", "tokenizer.json", "*.onnx")


def git_blob_sha1(content: bytes) -> str:
    """The object id that git gives a file of this content; the hub states it for files outside LFS."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git holds in place of an LFS file (LFS specification, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def describe_file(path: str, content: bytes) -> dict[str, Any]:
    """One file's entry: path, size, oid (git), and for an LFS file its SHA-256 and its pointer's size."""
    name = path.rsplit("/", 1)[-1]
    if not any(fnmatch.fnmatch(name, pattern) for pattern in LFS_PATTERNS):
        return {"path": path, "size": len(content), "oid": git_blob_sha1(content)}
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = lfs_pointer(sha256, len(content))
    return {
        "path": path,
        "size": len(content),
        "oid": git_blob_sha1(pointer),
        "sha256": sha256,
        "pointer_size": len(pointer),
    }


def describe_repository(folder: Path) -> dict[str, Any]:
    """All files of a repository, and a revision that changes exactly when a file does."""
    files = [
        describe_file(str(file.relative_to(folder)), file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    listing = "".join(f"{entry['oid']} {entry['path']}\n" for entry in files)
    return {"revision": hashlib.sha1(listing.encode()).hexdigest(), "files": files}


def write_index(models: Path, file: Path) -> None:
    """Write the index of `models`/<organisation>/<name> to `file`."""
    found = {
        f"{folder.parent.name}/{folder.name}": describe_repository(folder)
        for folder in sorted(models.glob("*/*"))
        if folder.is_dir()
    }
    file.write_text(json.dumps(found, indent=1))

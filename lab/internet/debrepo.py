"""Debian package repositories: the index files apt reads, written and signed.

Two layouts: `dists/<suite>/<component>/binary-amd64` as Debian and Docker have it, and the flat one (Release
beside Packages) that NVIDIA's container toolkit uses.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.internet.keys import SigningKey
from lab.internet.shell import run

HASHED_IN_STANZA = ("Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512")


@dataclass(frozen=True)
class Entry:
    """A package of a repository: its control fields and where its file lies below the repository's root."""

    stanza: str
    filename: str
    size: int
    sha256: str

    def render(self) -> str:
        """The stanza as it stands in Packages."""
        own = f"Filename: {self.filename}\nSize: {self.size}\nSHA256: {self.sha256}\n"
        return f"{without_fields(self.stanza, HASHED_IN_STANZA)}\n{own}"


def without_fields(stanza: str, names: Sequence[str]) -> str:
    """`stanza` without the named fields and their continuation lines."""
    kept, dropping = [], False
    for line in stanza.strip().splitlines():
        if not line.startswith((" ", "\t")):
            dropping = line.partition(":")[0] in names
        if not dropping:
            kept.append(line)
    return "\n".join(kept)


def entry_of(deb: Path, root: Path, stanza: str | None = None) -> Entry:
    """The entry of a .deb that lies under the repository's `root`; its control data is read from it unless
    given.
    """
    text = stanza if stanza is not None else run(["dpkg-deb", "--field", deb])
    return Entry(text, str(deb.relative_to(root)), deb.stat().st_size, sha256_of(deb))


def sha256_of(file: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def packages_text(entries: Sequence[Entry]) -> str:
    """A Packages file, in a stable order."""
    return "\n".join(entry.render() for entry in sorted(entries, key=lambda entry: entry.filename))


def release_text(fields: dict[str, str], files: dict[str, bytes], now: datetime) -> str:
    """A Release file: its fields, the date, and size and SHA-256 of each index file by its path below the
    Release file.
    """
    lines = [f"{key}: {value}" for key, value in fields.items()]
    lines += [f"Date: {now.astimezone(UTC):%a, %d %b %Y %H:%M:%S} UTC", "Acquire-By-Hash: no", "SHA256:"]
    lines += [
        f" {hashlib.sha256(content).hexdigest()} {len(content):>8} {path}" for path, content in sorted(files.items())
    ]
    return "\n".join(lines) + "\n"


def write_suite(root: Path, suite: str, component: str, entries: Sequence[Entry], key: SigningKey, label: str) -> None:
    """Write and sign `root`/dists/`suite` with one component for amd64. `label` is "Debian" or "Docker CE", as upstream."""
    folder = root / "dists" / suite
    index = f"{component}/binary-amd64/Packages"
    fields = {
        "Origin": label.partition(" ")[0],
        "Label": label,
        "Suite": suite,
        "Codename": suite,
        "Architectures": "amd64",
        "Components": component,
    }
    _write_indexes(folder, index, entries, fields, key)


def write_flat(folder: Path, entries: Sequence[Entry], key: SigningKey, origin: str) -> None:
    """Write and sign a flat repository whose packages lie in `folder` itself."""
    _write_indexes(folder, "Packages", entries, {"Origin": origin, "Label": origin, "Architectures": "amd64"}, key)


def _write_indexes(folder: Path, index: str, entries: Sequence[Entry], fields: dict[str, str], key: SigningKey) -> None:
    plain = packages_text(entries).encode()
    files = {index: plain, f"{index}.gz": gzip.compress(plain, 6, mtime=0)}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    release = folder / "Release"
    release.write_text(release_text(fields, files, datetime.now(UTC)))
    key.sign_clear(release, folder / "InRelease")
    key.sign_detached(release, folder / "Release.gpg")


def pool_path(name: str, file: str) -> str:
    """Where Debian keeps a package file: pool/main/<first letter, or lib and a letter>/<name>/<file>."""
    letter = re.match(r"lib.|.", name)
    return f"pool/main/{letter[0] if letter else name[:1]}/{name}/{file}"

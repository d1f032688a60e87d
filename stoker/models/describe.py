"""Write a model's card: from the hub's API, or from a directory that holds the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from stoker.models import headers
from stoker.models.card import CardFile, ModelCard, Source
from stoker.models.weights import simulated_bytes

#: What templates/fetch-model.py leaves beside a model that it has verified.
MANIFEST = ".stoker-manifest.json"
#: Seconds for one answer of the hub; none of them is large.
TIMEOUT = 20.0
_ANSWER = "answer of the hub's API"


class CannotDescribe(Exception):
    """No card could be made: why, and what to do."""


def from_hub(repository: str, revision: str, endpoint: str, token: str | None = None) -> ModelCard:
    """The card of a repository at the commit that ``revision`` names now. Raises CannotDescribe."""
    authorisation = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(
        base_url=endpoint, headers=authorisation, timeout=TIMEOUT, follow_redirects=True
    ) as client:  # httpx leaves the token out where a redirect leads to another host
        asked = f"{repository} at {endpoint}"
        info = _json(
            client, f"/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true", asked, bool(token)
        )
        try:
            commit = str(info["sha"])
            files = {str(entry["rfilename"]): _file(entry) for entry in info["siblings"]}
        except (KeyError, TypeError, AttributeError, ValidationError):
            reason = "does not answer as a model hub does"
            raise CannotDescribe(f"{endpoint} {reason}: correct --endpoint, mirrors['hub'] or HF_ENDPOINT") from None

        def read(path: str) -> str:
            return json.dumps(_json(client, f"/{repository}/resolve/{commit}/{path}", asked, bool(token)))

        if "config.json" not in files:
            raise CannotDescribe(f"{asked} has no config.json: only models in the transformers layout can be described")
        return ModelCard(
            repository=repository,
            revision=commit,
            config=json.loads(read("config.json")),
            files=files,
            simulated_weights=simulated_bytes(files, read),
            source=Source(revision=_ANSWER, config="config.json of the hub at this commit", files=_ANSWER),
        )


def from_directory(repository: str, directory: Path, revision: str | None = None) -> ModelCard:
    """The card of a model on this machine; every file is read for its checksum. Raises CannotDescribe."""
    files = {
        str(path.relative_to(directory)): CardFile(size=path.stat().st_size, sha256=_digest(path))
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not {".cache", ".git"}.intersection(path.parts)
    }
    if "config.json" not in files:
        raise CannotDescribe(f"{directory} has no config.json: name the directory that holds the model's files")
    try:
        config = json.loads((directory / "config.json").read_bytes())
        tensors = headers.tensor_bytes(directory)
    except headers.BadWeights as error:
        raise CannotDescribe(str(error)) from None
    except ValueError:
        raise CannotDescribe(f"{directory / 'config.json'} is not JSON: fetch it again") from None
    if not isinstance(config, dict):
        raise CannotDescribe(f"{directory / 'config.json'} is no model's configuration: fetch it again")
    commit = _fetched_commit(directory)
    if revision:
        origin = "as given"
    elif commit:
        origin = f"the directory's {MANIFEST}"
    else:
        origin = "not known; the hub's default branch was assumed"
    return ModelCard(
        repository=repository,
        revision=revision or commit or "main",
        config=config,
        files=files,
        tensors=tensors or None,
        simulated_weights=simulated_bytes(files, lambda path: (directory / path).read_bytes()),
        source=Source(
            revision=origin, config="config.json of a directory", files="files of a directory, their SHA-256 computed"
        ),
    )


def _file(entry: Mapping[str, Any]) -> CardFile:
    """The hub states a SHA-256 of what it keeps in LFS; of small files it has only git's own checksum."""
    lfs = entry.get("lfs") or {}
    return CardFile(size=entry.get("size"), sha256=lfs.get("sha256"))


def _json(client: httpx.Client, path: str, asked: str, with_token: bool) -> dict[str, Any]:
    try:
        answer = client.get(path)
    except httpx.RequestError as error:
        reason = str(error) or type(error).__name__
        raise CannotDescribe(
            f"{client.base_url} cannot be reached ({reason}): set --endpoint, mirrors['hub'] or HF_ENDPOINT, or use --from DIRECTORY"
        ) from None
    if answer.status_code != 200:
        raise CannotDescribe(_refusal(answer, asked, with_token))
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CannotDescribe(
            f"{answer.url} is not JSON: what answers there is no model hub; correct --endpoint or mirrors['hub']"
        )
    return found


def _refusal(answer: httpx.Response, asked: str, with_token: bool) -> str:
    """The hub's refusal in words. It answers 401 to an unknown name without a token, as to a private one."""
    match answer.headers.get("X-Error-Code", ""):
        case "GatedRepo" if with_token:
            return (
                f"{asked} is gated and the token has no access: accept its licence on the hub with the token's account"
            )
        case "GatedRepo":
            return f"{asked} is gated: accept its licence on the hub, and give a token in the variable that keys['hub'] names, or in HF_TOKEN"
        case "RevisionNotFound":
            return f"{asked} has no such revision: correct --revision"
        case "EntryNotFound":
            return f"{asked} lacks a file that its list names: try again"
    if answer.status_code in (401, 404):
        remedy = "correct the name" if with_token else "correct the name, or give a token for a private one in HF_TOKEN"
        return f"there is no {asked}, or it is private: {remedy}"
    if answer.status_code == 403:
        return f"{asked} is forbidden: accept its licence on the hub with the token's account"
    return (
        f"{answer.url} answers {answer.status_code} {answer.reason_phrase}: try again later, or set another --endpoint"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched_commit(directory: Path) -> str | None:
    """The commit that a deploy fetched into the directory."""
    try:
        commit = json.loads((directory / MANIFEST).read_bytes())["commit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(commit) or None

"""The lab's model hub: the HTTP API that huggingface_hub 0.36 and `hf download` use, over a directory of
small model files.

Runs on the internet machine (standard library only) behind nginx. What it serves is written by the lab's
build: `index.json` and `models/<organisation>/<name>/...` in the data directory. Faults are read at each
request from a file, see FAULTS.

API read from huggingface_hub 0.36.2: hf_api.py (repo_info, list_repo_tree, get_paths_info, list_repo_refs),
file_download.py (the HEAD request and its headers, resuming by Range), utils/_http.py (X-Error-Code).
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

FAULTS = Path("/run/lab-internet/faults.json")
"""{"<organisation>/<name>" or "all": {fault: value}}; written by the `fault` program beside this file, which
lists the faults.
"""

CHUNK = 64 * 1024


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer that is not a success: status, the hub's error code, text for a person."""

    status: int
    code: str
    text: str


@dataclass(frozen=True)
class ByteRange:
    """The part of a file that is asked for: first byte, number of bytes, and whether it is less than the
    whole.
    """

    start: int
    length: int
    partial: bool


def parse_range(header: str | None, size: int) -> ByteRange:
    """The bytes that a Range header asks for; the whole file when there is none or it has a form we do not
    know.

    Raises:
        Refusal: 416, the range starts behind the end.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not match or not (match[1] or match[2]):
        return ByteRange(0, size, False)
    if not match[1]:
        start, end = max(0, size - int(match[2])), size - 1
    else:
        start, end = int(match[1]), min(int(match[2]) if match[2] else size - 1, size - 1)
    if start > end:
        raise Refusal(416, "", f"the file has {size} bytes; the range starts at {start}")
    return ByteRange(start, end - start + 1, True)


class Hub:
    """The repositories, and the faults to play."""

    def __init__(self, data: Path, faults: Path = FAULTS) -> None:
        self.data = data
        self._faults = faults

    def repositories(self) -> dict[str, Any]:
        """The index as it is now: a rebuild of the lab's content shows at the next request."""
        loaded: dict[str, Any] = json.loads((self.data / "index.json").read_text())
        return loaded

    def faults(self, repository: str) -> dict[str, Any]:
        """The faults set for a repository, those for "all" included."""
        try:
            faults = json.loads(self._faults.read_text())
        except (OSError, ValueError):
            return {}
        return {**faults.get("all", {}), **faults.get(repository, {})}

    def find(self, repository: str, revision: str, token: str) -> dict[str, Any]:
        """A repository's index entry.

        Raises:
            Refusal: there is no such repository or revision. Without a token the hub says 401, as the real
            one does, since the repository could be a private one.
        """
        if "unavailable" in self.faults(repository):
            raise Refusal(503, "", "The lab's hub is told to be unavailable.")
        entry: dict[str, Any] | None = self.repositories().get(repository)
        if entry is None:
            raise Refusal(404 if token else 401, "RepoNotFound", "Repository not found")
        if revision not in ("main", entry["revision"]):
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return entry

    def check_access(self, repository: str, token: str) -> None:
        """Refuse files of a repository that is told to be gated.

        Raises:
            Refusal: 401 without a token, 403 with one that has no access (any but the fault's value).
        """
        gate = self.faults(repository).get("gated")
        if gate is None or (isinstance(gate, str) and gate and token == gate):
            return
        if not token:
            raise Refusal(
                401,
                "GatedRepo",
                f"Access to model {repository} is restricted. You must have access to it and be "
                "authenticated to access it. Please log in.",
            )
        raise Refusal(
            403,
            "GatedRepo",
            f"Access to model {repository} is restricted and you are not in the authorized list.",
        )


def info(repository: str, entry: dict[str, Any], blobs: bool) -> dict[str, Any]:
    """The answer of /api/models/<repository>[/revision/<revision>]."""
    siblings = []
    for file in entry["files"]:
        sibling: dict[str, Any] = {"rfilename": file["path"]}
        if blobs:
            sibling |= {"size": file["size"], "blobId": file["oid"]}
            if "sha256" in file:
                sibling["lfs"] = {
                    "sha256": file["sha256"],
                    "size": file["size"],
                    "pointerSize": file["pointer_size"],
                }
        siblings.append(sibling)
    return {
        "_id": entry["revision"][:24],
        "id": repository,
        "modelId": repository,
        "author": repository.split("/")[0],
        "sha": entry["revision"],
        "lastModified": "2026-01-01T00:00:00.000Z",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["simulated"],
        "siblings": siblings,
    }


def tree_entry(file: dict[str, Any]) -> dict[str, Any]:
    """A file as /tree/ and /paths-info/ state it."""
    entry = {"type": "file", "oid": file["oid"], "size": file["size"], "path": file["path"]}
    if "sha256" in file:
        entry["lfs"] = {"oid": file["sha256"], "size": file["size"], "pointerSize": file["pointer_size"]}
    return entry


def tree(entry: dict[str, Any], below: str, recursive: bool) -> list[dict[str, Any]]:
    """Files and directories below a path of the repository ("" is its root)."""
    prefix = f"{below}/" if below else ""
    found: dict[str, dict[str, Any]] = {}
    for file in entry["files"]:
        path = file["path"]
        if not path.startswith(prefix):
            continue
        folders = path[len(prefix) :].split("/")[:-1]
        for depth in range(1, (len(folders) if recursive else min(1, len(folders))) + 1):
            folder = prefix + "/".join(folders[:depth])
            found[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
        if recursive or not folders:
            found[path] = tree_entry(file)
    return list(found.values())


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server_version = "StokerLabHub"
    hub: Hub

    def do_GET(self) -> None:
        """Answer an API request or send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without a body; clients learn size, checksum and revision by it."""
        self._answer(body=False)

    def do_POST(self) -> None:
        """paths-info is the only request of a download that is a POST."""
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        try:
            self._route(body)
        except Refusal as refusal:
            self._send_json(
                refusal.status,
                {"error": refusal.text},
                body,
                {"X-Error-Code": refusal.code, "X-Error-Message": refusal.text},
            )
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _route(self, body: bool) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), url.query
        payload = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if path == "/api/whoami-v2":
            raise Refusal(401, "", "Invalid username or password.")
        if path.startswith("/api/telemetry"):
            self._send_json(200, {}, body)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            entry = self.hub.find(match[1], match[2] or "main", token)
            self._send_json(200, info(match[1], entry, "blobs=" in query), body)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            entry = self.hub.find(match[1], match[2], token)
            self._send_json(200, tree(entry, match[3] or "", "recursive=true" in query.lower()), body)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)", path):
            entry = self.hub.find(match[1], match[2], token)
            wanted = parse_qs(payload.decode()).get("paths", [])
            self._send_json(200, [tree_entry(file) for file in entry["files"] if file["path"] in wanted], body)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/refs", path):
            entry = self.hub.find(match[1], "main", token)
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": entry["revision"]}
            self._send_json(200, {"branches": [branch], "tags": [], "converts": []}, body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            entry = self.hub.find(match[1], match[2], token)
            self.hub.check_access(match[1], token)
            self._send_file(match[1], entry, match[3], body)
        else:
            raise Refusal(404, "", f"The lab's hub has nothing at {path}")

    def _send_json(self, status: int, value: Any, body: bool, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status, HTTPStatus(status).phrase)
        for key, text in {
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            if text:
                self.send_header(key, text)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _send_file(self, repository: str, entry: dict[str, Any], path: str, body: bool) -> None:
        file = next((file for file in entry["files"] if file["path"] == path), None)
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        wanted = parse_range(self.headers.get("Range"), file["size"])
        self.send_response(206 if wanted.partial else 200)
        etag = f'"{file.get("sha256", file["oid"])}"'
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(wanted.length),
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "X-Repo-Commit": entry["revision"],
            "Content-Disposition": f'inline; filename="{path.rsplit("/", 1)[-1]}"',
        }
        if "sha256" in file:
            headers |= {"X-Linked-ETag": etag, "X-Linked-Size": str(file["size"])}
        if wanted.partial:
            headers["Content-Range"] = f"bytes {wanted.start}-{wanted.start + wanted.length - 1}/{file['size']}"
        for key, text in headers.items():
            self.send_header(key, text)
        self.end_headers()
        if body:
            self._send_content(repository, file, wanted)

    def _send_content(self, repository: str, file: dict[str, Any], wanted: ByteRange) -> None:
        """Send the bytes, with the repository's faults: `corrupt`, `truncate` and `slow` concern LFS files
        (the weights) only.
        """
        content = (self.hub.data / "models" / repository / file["path"]).read_bytes()
        faults = self.hub.faults(repository) if "sha256" in file else {}
        if "corrupt" in faults:
            content = content[:-1] + bytes([content[-1] ^ 0xFF])
        part = content[wanted.start : wanted.start + wanted.length]
        if "truncate" in faults:
            part = part[: int(faults["truncate"] or len(part) // 2)]
        if "slow" in faults:
            self._send_slowly(part, int(faults["slow"] or 4096))
        else:
            self.wfile.write(part)
        if len(part) < wanted.length:
            self.close_connection = True

    def _send_slowly(self, content: bytes, bytes_per_second: int) -> None:
        step = max(1, min(CHUNK, bytes_per_second // 4))
        for start in range(0, len(content), step):
            self.wfile.write(content[start : start + step])
            self.wfile.flush()
            time.sleep(step / bytes_per_second)

    def log_message(self, format: str, *args: Any) -> None:
        """One line a request in the service's journal."""
        print(f"{self.address_string()} {format % args}", flush=True)


def make_server(address: tuple[str, int], data: Path, faults: Path = FAULTS) -> ThreadingHTTPServer:
    """A hub that listens on `address`; port 0 takes a free one."""
    handler = type("BoundHandler", (Handler,), {"hub": Hub(data, faults)})
    server = ThreadingHTTPServer(address, handler)
    server.daemon_threads = True
    return server


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="directory with index.json and models/")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1")
    options = parser.parse_args()
    make_server(("127.0.0.1", options.port), options.data).serve_forever()


if __name__ == "__main__":
    main()

"""Prove from inside the lab's network that its internet serves: `lab/run python3 -m lab.internet.check
--keyring FILE`.

One line a check; the exit status is 1 when one fails. Every file that an index names is asked for by HEAD, so
a repository that lists what it does not have is found here and not in the middle of a deploy.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from lab.internet.python_index import REQUIRES, normal

ADDRESS = "192.168.31.1"
PACKAGES = "http://packages.internet.test"
REGISTRY = "http://registry.internet.test:5000"
HUB = "http://hub.internet.test"
TIMEOUT_S = 10
NOWHERE = "download.docker.com"
NOWHERE_LIMIT_S = 2.0
"""A name outside the lab must be refused at once: a host that waits for it makes every mistake slow."""
MANIFEST_TYPES = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


class CheckError(Exception):
    """What is wrong, for a person."""


def fetch(url: str, *, method: str = "GET", accept: str = "*/*") -> bytes:
    """The body at `url`.

    Raises:
        CheckError: it cannot be reached, or answers with an error; the URL is in the text.
    """
    try:
        with urlopen(Request(url, method=method, headers={"Accept": accept}), timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read()
            return body
    except HTTPError as error:
        raise CheckError(f"{method} {url} answers {error.code}") from error
    except (URLError, OSError) as error:
        raise CheckError(f"{method} {url}: {getattr(error, 'reason', error)}") from error


def check_names() -> str:
    """The lab's names lead to the internet machine, any other name is refused quickly."""
    for name in ("packages.internet.test", "registry.internet.test", "hub.internet.test"):
        try:
            found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
        except OSError as error:
            raise CheckError(f"{name} is not known: {error}") from error
        if found != ADDRESS:
            raise CheckError(f"{name} is {found}, expected {ADDRESS}")
    started = time.monotonic()
    try:
        socket.getaddrinfo(NOWHERE, 80)
    except OSError:
        took = time.monotonic() - started
        if took > NOWHERE_LIMIT_S:
            raise CheckError(f"{NOWHERE} is refused after {took:.1f} s; it must be refused at once") from None
        return f"3 names lead to {ADDRESS}, {NOWHERE} is refused in {took * 1000:.0f} ms"
    raise CheckError(f"{NOWHERE} has an address here: the lab is not closed")


def check_repository(release_url: str, index: str, root: str, keyring: Path) -> str:
    """A package repository: its signature, its index's checksum, and that each package file is there with the
    size stated.
    """
    signed = fetch(f"{release_url}/InRelease")
    with tempfile.NamedTemporaryFile() as file:
        file.write(signed)
        file.flush()
        verified = subprocess.run(
            ["gpgv", "--quiet", "--keyring", keyring, file.name], capture_output=True, text=True, check=False
        )
    if verified.returncode != 0:
        raise CheckError(f"{release_url}/InRelease is not signed by the lab's key: {verified.stderr.strip()}")
    packed = fetch(f"{release_url}/{index}.gz")
    if f" {hashlib.sha256(packed).hexdigest()} {len(packed):>8} {index}.gz" not in signed.decode():
        raise CheckError(f"{release_url}/{index}.gz has another checksum than InRelease states")
    names = [
        line.removeprefix("Filename: ")
        for line in gzip.decompress(packed).decode().splitlines()
        if line.startswith("Filename: ")
    ]
    for name in names:
        fetch(f"{root}/{quote(name)}", method="HEAD")
    return f"signed, {len(names)} packages"


def check_image(name: str, tag: str) -> str:
    """An image: its tag leads to a manifest whose configuration and layers are there."""
    manifest = json.loads(fetch(f"{REGISTRY}/v2/{name}/manifests/{tag}", accept=MANIFEST_TYPES))
    blobs = [manifest["config"], *manifest["layers"]]
    for blob in blobs:
        fetch(f"{REGISTRY}/v2/{name}/blobs/{blob['digest']}", method="HEAD")
    return f"{len(manifest['layers'])} layers, {sum(blob['size'] for blob in blobs) / 1e6:.1f} MB"


def check_model(repository: str) -> str:
    """A model repository: the API describes it and each of its files is there."""
    info = json.loads(fetch(f"{HUB}/api/models/{repository}/revision/main?blobs=true"))
    for sibling in info["siblings"]:
        fetch(f"{HUB}/{repository}/resolve/{info['sha']}/{quote(sibling['rfilename'])}", method="HEAD")
    return f"{len(info['siblings'])} files at {info['sha'][:12]}"


def check_python(packages: list[str]) -> str:
    """The index of Python packages: each has a page, and each file that it names is there."""
    files = 0
    for name in packages:
        page = f"{PACKAGES}/python/simple/{normal(name)}/"
        links = re.findall(r'href="([^"#]+)', fetch(page).decode())
        if not links:
            raise CheckError(f"{page} names no file")
        for link in links:
            fetch(f"{page}{quote(link)}", method="HEAD")
        files += len(links)
    return f"{len(packages)} packages, {files} files"


def all_checks(contents: dict[str, Any], keyring: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name and function of each check."""
    yield "names", check_names
    for release in contents["releases"]:
        for what, path, component in (
            ("debian", "debian", "main"),
            ("docker", "docker/linux/debian", "stable"),
        ):
            root = f"{PACKAGES}/{path}"
            index = f"{component}/binary-amd64/Packages"
            yield (
                f"{what} {release}",
                partial(check_repository, f"{root}/dists/{release}", index, root, keyring),
            )
    flat = f"{PACKAGES}/libnvidia-container/stable/deb/amd64"
    yield "container toolkit", partial(check_repository, flat, "Packages", flat, keyring)
    yield "python index", partial(check_python, [*contents["python"]["packages"], *REQUIRES])
    for image in contents["images"].values():
        for tag in image.get("tags", []):
            yield f"image {image['name']}:{tag}", partial(check_image, image["name"], tag)
    for model in contents["hub"]["models"]:
        yield f"model {model}", partial(check_model, model)


def main() -> int:
    """Run all checks; 1 when one failed."""
    parser = argparse.ArgumentParser(
        prog="python3 -m lab.internet.check", description="Check the lab's internet from inside its network."
    )
    parser.add_argument("--keyring", type=Path, required=True, help="the lab's public key, binary")
    parser.add_argument("--quiet", action="store_true", help="print failures only")
    options = parser.parse_args()
    contents = tomllib.loads((Path(__file__).parent / "contents.toml").read_text())
    failed = 0
    for name, check in all_checks(contents, options.keyring):
        try:
            text = check()
        except CheckError as error:
            failed += 1
            print(f"FAILED  {name}: {error}")
        else:
            if not options.quiet:
                print(f"ok      {name}: {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Building an image on the host from a directory of images/: what travels there, and the command.

The image is labelled with the hash of its files. An edited Dockerfile is therefore built anew under the same tag, and what is built already is left alone.
An image of that name without the label was brought by somebody (`docker load`), and is taken as it is.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from urllib.parse import urlsplit

from stoker.facts.paths import HOST_STATE
from stoker.facts.probe import CONTEXT_LABEL
from stoker.facts.state import HostState
from stoker.spec.fleet import Host
from stoker.spec.own_images import IMAGES, own_name
from stoker.steps.action import Action, File, write_files
from stoker.steps.pull import pull_script

_FROM = re.compile(r"^FROM\s+(\S+)\s*$", re.MULTILINE)


def own_images(host: Host) -> list[str]:
    """Those of the host's images that are built."""
    return [image for image in host.images() if own_name(image)]


def bases(host: Host) -> list[str]:
    """What they are built on."""
    return list(dict.fromkeys(base(image) for image in own_images(host)))


def base(image: str) -> str:
    """The image that the Dockerfile begins with. It is pulled like any other, with figures, and not by the build."""
    found = _FROM.findall((IMAGES / own_name(image) / "Dockerfile").read_text(encoding="utf-8"))
    assert len(found) == 1, f"{own_name(image)}: one FROM without a variable is what the step can read"
    return str(found[0])


def context(image: str) -> dict[str, str]:
    """Path -> text of the files that it is built from, in a fixed order."""
    root = IMAGES / own_name(image)
    files = sorted(file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}


def identity(image: str) -> str:
    """What its label says: the hash of the names and texts of its files."""
    total = hashlib.sha256()
    for path, text in context(image).items():
        total.update(f"{path}\0{len(text.encode())}\0{text}".encode())
    return total.hexdigest()[:16]


def lacking(host: Host, state: HostState) -> list[str]:
    """Images that have to be built: not there, or built from other files."""
    return [
        image
        for image in own_images(host)
        if not state.images.get(image) or state.contexts.get(image, "") not in ("", identity(image))
    ]


def actions(host: Host, state: HostState) -> list[Action]:
    """Pull what they are built on, bring their files, build."""
    images = lacking(host, state)
    needed = dict.fromkeys(base(image) for image in images)
    pulls = [
        Action(f"pull {one}", pull_script(one), long=True, image=one) for one in needed if not state.images.get(one)
    ]
    return [*pulls, *(action for image in images for action in _build(host, state, image))]


def _build(host: Host, state: HostState, image: str) -> list[Action]:
    directory = f"{HOST_STATE}/build/{own_name(image)}-{identity(image)}"
    files = [File(f"{directory}/{path}", text) for path, text in context(image).items()]
    script, stdin = write_files(files, directory)
    command = ["docker", "build", "--tag", image, "--label", f"{CONTEXT_LABEL}={identity(image)}"]
    for name, value in build_arguments(host).items():
        command += ["--build-arg", f"{name}={value}"]
    # Without attestations the image's id is that of the image and not of an index around it; the older builder knows no such option.
    build = f"BUILDX_NO_DEFAULT_ATTESTATIONS=1 {shlex.join([*command, directory])} && rm -rf {shlex.quote(directory)}"
    why = ": its files have changed" if state.images.get(image) else ""
    return [
        Action(f"bring the {len(files)} files of {image} to {directory}", script, stdin),
        Action(f"build {image}{why}", build, long=True),
    ]


def build_arguments(host: Host) -> dict[str, str]:
    """Where the build downloads from. The index stays readable in the image's history, the proxy does not; neither can hold a password."""
    mirror, proxy = host.settings.mirrors.python, host.settings.proxy
    found = {"PIP_INDEX_URL": mirror}
    if mirror.startswith("http://"):
        found["PIP_TRUSTED_HOST"] = urlsplit(mirror).hostname or ""
    found |= {key: value for key, value in (("HTTP_PROXY", proxy.http), ("HTTPS_PROXY", proxy.https)) if value}
    if proxy.http or proxy.https:
        found["NO_PROXY"] = ",".join(proxy.no_proxy)
    return found

#!/usr/bin/env python3
"""Bring a model's files to this host and verify them. Runs in the engine's image, which has huggingface_hub.

    fetch-model.py DIRECTORY REPOSITORY REVISION [--only PATTERN | --exclude PATTERN...]

Reads HF_ENDPOINT and HF_TOKEN. What is already there and right is kept, what is half there goes on. Every file is compared
with the hub's checksum (SHA-256 of large files, git blob SHA-1 of small ones); then .stoker-manifest.json is written, by which later
deploys see at a glance that nothing is missing. When the hub cannot be reached and files are there, their structure is checked
instead and the manifest says so.

Exit status: 0 done, 1 failed (the last line says why and what to do).
"""

import argparse
import fnmatch
import hashlib
import json
import os
import re
import struct
import sys
import threading
from pathlib import Path

MANIFEST = ".stoker-manifest.json"
CHUNK = 1 << 20


class Failure(Exception):
    """What went wrong and what to do, for the person who deploys."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("repository")
    parser.add_argument("revision")
    parser.add_argument("--only", default="*")
    parser.add_argument("--exclude", action="append", default=[])
    arguments = parser.parse_args()
    directory = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    try:
        wanted, commit = listing(arguments.repository, arguments.revision, arguments.only, arguments.exclude)
        if wanted is None:
            files = check_structure(directory) if arguments.only == "*" else check_gguf(directory, arguments.only)
            checked = "structure"
        else:
            download(directory, arguments.repository, commit, wanted)
            files = check_sums(directory, arguments.repository, commit, wanted)
            checked = "checksums"
    except Failure as failure:
        print(f"ERROR {' '.join(str(failure).split())}", flush=True)  # one line: the deploy shows the last one
        return 1
    manifest = {
        "repository": arguments.repository,
        "revision": arguments.revision,
        "commit": commit,
        "checked": checked,
        "files": files,
    }
    temporary = directory / (MANIFEST + ".new")
    temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True))
    temporary.replace(directory / MANIFEST)
    print(
        f"{arguments.repository}: {len(files)} files, {sum(f['size'] for f in files.values()) / 1e9:.2f} GB, {checked} right",
        flush=True,
    )
    return 0


def listing(repository, revision, only, exclude):
    """``({path: (size, algorithm, checksum)}, commit)``, or ``(None, "")`` when the hub cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=20)
    except GatedRepoError:
        raise gated(repository) from None
    except RevisionNotFoundError:
        raise Failure(f"{repository} has no revision {revision}: correct `revision` of the model") from None
    except RepositoryNotFoundError:
        raise Failure(
            f"{endpoint} has no repository {repository}, or it is private: correct `repository`, or give a token"
        ) from None
    except HfHubHTTPError as error:
        raise Failure(f"{endpoint} answers {error}: try again, or set another `mirrors['hub']`") from None
    except Exception as error:  # no route, no name, time-out: huggingface_hub passes on whatever its HTTP client raises
        print(f"{endpoint} cannot be reached ({type(error).__name__}: {str(error)[:200]})", flush=True)
        return None, ""
    wanted = {}
    for sibling in info.siblings or []:
        if not fnmatch.fnmatch(sibling.rfilename, only):
            continue
        if any(fnmatch.fnmatch(sibling.rfilename, pattern) for pattern in exclude):
            continue
        algorithm, checksum = ("sha256", sibling.lfs["sha256"]) if sibling.lfs else ("git-sha1", sibling.blob_id)
        wanted[sibling.rfilename] = (sibling.size or 0, algorithm, checksum)
    if not wanted:
        what = "no files" if only == "*" else f"no file {only}: correct `file` of the model"
        raise Failure(f"{repository} holds {what}")
    return wanted, info.sha


def gated(repository):
    return Failure(
        f"{repository} is gated: accept its licence on the hub and give a token (`keys` in group_data/all.py)"
    )


def download(directory, repository, commit, wanted):
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    missing = {
        path: size
        for path, (size, _, _) in wanted.items()
        if not (directory / path).is_file() or (directory / path).stat().st_size != size
    }
    need, free = sum(missing.values()), os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
    if need > free:
        raise Failure(
            f"{repository} needs {need / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB free: make room, or choose another model_directory"
        )
    if not missing:
        return
    stop = threading.Event()
    threading.Thread(
        target=report, args=(directory, sum(size for size, _, _ in wanted.values()), stop), daemon=True
    ).start()
    try:
        snapshot_download(repository, revision=commit, local_dir=directory, allow_patterns=list(missing), max_workers=4)
    except GatedRepoError:  # the listing is open to everybody
        raise gated(repository) from None
    except Exception as error:
        raise Failure(
            f"download of {repository} stopped: {type(error).__name__}: {str(error)[:300]}; the next deploy goes on from here"
        ) from None
    finally:
        stop.set()


def report(directory, total, stop):
    """A line each second with what has arrived, half files included."""
    while not stop.wait(1):
        have = sum(path.stat().st_size for path in list(directory.rglob("*")) if path.is_file())
        print(
            f"{min(have, total) / 1e9:.2f} of {total / 1e9:.2f} GB ({min(100, 100 * have // max(total, 1))} %)",
            flush=True,
        )


def check_sums(directory, repository, commit, wanted):
    files = {}
    for path, (size, algorithm, checksum) in sorted(wanted.items()):
        for attempt in (1, 2):
            found = digest(directory / path, algorithm)
            if found == checksum:
                break
            (directory / path).unlink(missing_ok=True)
            if attempt == 2:
                raise Failure(
                    f"{path} of {repository} arrived with the checksum {found}, the hub says {checksum}: something on the way "
                    "changes files; set another `mirrors['hub']`"
                )
            download(directory, repository, commit, {path: (size, algorithm, checksum)})
        files[path] = {"size": (directory / path).stat().st_size, algorithm: checksum}
    return files


def digest(path, algorithm):
    if not path.is_file():
        return "none"
    hasher = hashlib.sha256() if algorithm == "sha256" else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            hasher.update(block)
    return hasher.hexdigest()


def check_structure(directory):
    """Files that somebody copied here: complete by the index, and no weight file cut off."""
    weights = sorted(directory.glob("*.safetensors"))
    if not (directory / "config.json").is_file() or not (weights or list(directory.glob("*.bin"))):
        raise Failure(
            f"{directory.name} is not on this host and the hub cannot be reached: set `mirrors` or `proxy`, or copy the model's files "
            "into its directory"
        )
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            lacking = sorted(
                set(json.loads(index.read_text())["weight_map"].values()) - {path.name for path in weights}
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Failure(f"{index.name} of {directory.name} cannot be read: copy it again") from None
        if lacking:
            raise Failure(f"{directory.name} lacks {', '.join(lacking)}: copy them too")
    for path in weights:
        with path.open("rb") as file:
            try:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
                end = (
                    8
                    + length
                    + max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
                )
            except (
                struct.error,
                ValueError,
                KeyError,
                IndexError,
                TypeError,
                AttributeError,
                MemoryError,
                OverflowError,
            ):
                raise Failure(
                    f"{path.name} of {directory.name} is not a safetensors file (a Git LFS pointer, or half a file): copy it again"
                ) from None
        if end != path.stat().st_size:
            raise Failure(
                f"{path.name} of {directory.name} has {path.stat().st_size} bytes, its header says {end}: copy it again"
            )
    found = [path for path in directory.rglob("*") if path.name != MANIFEST and ".cache" not in path.parts]
    return sums(directory, found)


def check_gguf(directory, only):
    """One model in GGUF that somebody copied here, in one file or in all its parts."""
    found = sorted(directory.glob(only))
    split = re.search(r"-of-(\d{5})\.gguf$", only)
    if len(found) != (int(split[1]) if split else 1):
        raise Failure(
            f"{only} of {directory.name} is not on this host and the hub cannot be reached: set `mirrors` or `proxy`, or copy it "
            "into its directory"
        )
    for path in found:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise Failure(f"{path.name} of {directory.name} is not a GGUF file (a Git LFS pointer?): copy it again")
    return sums(directory, found)


def sums(directory, paths):
    """What the manifest says of files that no hub vouches for."""
    files = sorted(path for path in paths if path.is_file())
    return {
        str(path.relative_to(directory)): {"size": path.stat().st_size, "sha256": digest(path, "sha256")}
        for path in files
    }


if __name__ == "__main__":
    sys.exit(main())

"""templates/fetch-model.py as a real process, with the real huggingface_hub, against the lab's hub on a local port."""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.fleet import LLM, make_fleet
from support.hub_client import site_packages

from lab.internet import hub, hub_index
from stoker.facts.manifest import is_complete
from stoker.facts.state import HostState

SCRIPT = Path(__file__).resolve().parents[2] / "templates" / "fetch-model.py"
#: Its functions, for what needs no process.
PROGRAM = runpy.run_path(str(SCRIPT), run_name="fetch_model")
REPOSITORY = "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8"
INDEX = {"weight_map": {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}}


def safetensors(*sizes: int) -> bytes:
    """A valid file with tensors of so many bytes: length of the header, header, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for number, size in enumerate(sizes):
        header[f"t{number}"] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(range(256)) * (offset // 256) + b"\7" * (offset % 256)


FILES = {
    "config.json": b'{"model_type": "qwen2"}\n',
    "tokenizer.json": b'{"version": "1.0"}\n',
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "model-00001-of-00002.safetensors": safetensors(3000, 5000),
    "model-00002-of-00002.safetensors": safetensors(70_000),
    "original/consolidated.pth": b"not wanted",
}
WANTED = sorted(name for name in FILES if not name.startswith("original/"))


@dataclass
class Hub:
    """The lab's hub with one repository, and what it was asked for."""

    folder: Path
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def fail(self, **faults: str) -> None:
        (self.folder / "faults.json").write_text(json.dumps({"all": faults}))

    def write(self, files: dict[str, bytes]) -> None:
        repository = self.folder / "models" / REPOSITORY
        for name, content in files.items():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            (repository / name).write_bytes(content)
        hub_index.write_index(self.folder / "models", self.folder / "index.json")

    def sent(self) -> list[str]:
        """Names of the files that were downloaded, in the order of the requests."""
        return [
            line.split("/resolve/")[1].split("/", 1)[1].removesuffix(" HTTP/1.1")
            for line in self.requests
            if line.startswith("GET") and "/resolve/" in line
        ]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    running = Hub(tmp_path / "hub")
    running.write(FILES)
    server = hub.make_server(("127.0.0.1", 0), running.folder, running.folder / "faults.json")
    handler: Any = server.RequestHandlerClass
    handler.log_message = lambda self, form, *values: running.requests.append(self.requestline)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    running.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield running
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass(frozen=True)
class Done:
    status: int
    lines: list[str]


def fetch(directory: Path, address: str, revision: str = "main", **environment: str) -> Done:
    """Run the program as the engine's image does."""
    done = subprocess.run(
        [sys.executable, SCRIPT, directory, REPOSITORY, revision, "--exclude", "original/*", "--exclude", "*.pth"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory.parent),
            "PYTHONPATH": str(site_packages()),
            "HF_ENDPOINT": address,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout.splitlines())


def manifest(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / ".stoker-manifest.json").read_text())
    return found


def complete(directory: Path) -> bool:
    """What the next deploy would say of the directory, from its manifest and the lengths of its files."""
    host = make_fleet().host(LLM)
    model = host.settings.models["qwen2.5-14b"]
    file = directory / ".stoker-manifest.json"
    state = HostState(
        contents={f"/data/{file.name}": file.read_text() if file.exists() else ""},
        model_files={
            "/data": {
                str(path.relative_to(directory)): path.stat().st_size for path in directory.rglob("*") if path.is_file()
            }
        },
    )
    return is_complete("/data", model, state)  # type: ignore[arg-type]


def put(directory: Path, files: dict[str, bytes]) -> None:
    """Files that somebody copied to a host."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_model_is_downloaded_and_verified(served: Hub, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    done = fetch(directory, served.address)
    assert (done.status, done.lines[-1]) == (0, f"{REPOSITORY}: 5 files, 0.00 GB, checksums right")
    assert {name: (directory / name).read_bytes() for name in WANTED} == {name: FILES[name] for name in WANTED}
    assert not (directory / "original").exists()
    found = manifest(directory)
    assert (found["repository"], found["revision"], found["checked"]) == (REPOSITORY, "main", "checksums")
    assert len(found["commit"]) == 40
    assert {name: entry["size"] for name, entry in found["files"].items()} == {n: len(FILES[n]) for n in WANTED}
    assert complete(directory)


def test_the_second_time_nothing_is_downloaded(served: Hub, tmp_path: Path) -> None:
    fetch(tmp_path / "model", served.address)
    served.requests.clear()
    assert fetch(tmp_path / "model", served.address).status == 0
    assert served.sent() == []


def test_files_that_are_there_already_are_kept(served: Hub, tmp_path: Path) -> None:
    """Copied by hand, without a manifest; one of them is half there."""
    directory = tmp_path / "model"
    half = FILES["model-00002-of-00002.safetensors"][:30_000]
    put(directory, {name: FILES[name] for name in WANTED} | {"model-00002-of-00002.safetensors": half})
    assert fetch(directory, served.address).status == 0
    assert set(served.sent()) == {"model-00002-of-00002.safetensors"}
    assert complete(directory)


def test_a_file_of_the_right_length_and_wrong_content_is_replaced(served: Hub, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    wrong = bytearray(FILES["model-00001-of-00002.safetensors"])
    wrong[-1] ^= 1
    put(directory, {name: FILES[name] for name in WANTED} | {"model-00001-of-00002.safetensors": bytes(wrong)})
    assert fetch(directory, served.address).status == 0
    assert (directory / "model-00001-of-00002.safetensors").read_bytes() == FILES["model-00001-of-00002.safetensors"]


def test_a_new_revision_is_followed(served: Hub, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    fetch(directory, served.address)
    before = manifest(directory)["commit"]
    served.write({"config.json": b'{"model_type": "qwen2", "x": 1}\n'})
    assert fetch(directory, served.address).status == 0
    assert manifest(directory)["commit"] != before
    assert (directory / "config.json").read_bytes() == b'{"model_type": "qwen2", "x": 1}\n'


def test_something_on_the_way_changes_files(served: Hub, tmp_path: Path) -> None:
    served.fail(corrupt="")
    done = fetch(tmp_path / "model", served.address)
    assert done.status == 1
    assert "arrived with the checksum" in done.lines[-1]
    assert "set another `mirrors['hub']`" in done.lines[-1]
    assert not complete(tmp_path / "model")


def test_a_download_that_stops_goes_on_the_next_time(served: Hub, tmp_path: Path) -> None:
    served.fail(truncate="2000")
    done = fetch(tmp_path / "model", served.address, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert done.status == 1
    assert "the next deploy goes on from here" in done.lines[-1]
    assert not complete(tmp_path / "model")
    served.fail()
    assert fetch(tmp_path / "model", served.address).status == 0
    assert complete(tmp_path / "model")


@pytest.mark.parametrize(
    ("faults", "revision", "token", "words"),
    [
        ({"gated": "right"}, "main", "", "is gated: accept its licence on the hub and give a token (`keys`"),
        ({"gated": "right"}, "main", "wrong", "is gated: accept its licence"),
        ({"unavailable": ""}, "main", "", "try again, or set another `mirrors['hub']`"),
        ({}, "v9", "", "has no revision v9: correct `revision` of the model"),
    ],
)
def test_refusals_of_the_hub(
    served: Hub, tmp_path: Path, faults: dict[str, str], revision: str, token: str, words: str
) -> None:
    served.fail(**faults)
    done = fetch(tmp_path / "model", served.address, revision, **({"HF_TOKEN": token} if token else {}))
    assert done.status == 1
    assert done.lines[-1].startswith("ERROR ")
    assert words in done.lines[-1]
    assert not (tmp_path / "model" / ".stoker-manifest.json").exists()


def test_a_token_opens_a_gated_repository_and_is_not_printed(served: Hub, tmp_path: Path) -> None:
    served.fail(gated="hf_secret")
    done = fetch(tmp_path / "model", served.address, HF_TOKEN="hf_secret")
    assert done.status == 0
    assert "hf_secret" not in "\n".join(done.lines)
    assert "hf_secret" not in (tmp_path / "model" / ".stoker-manifest.json").read_text()


def test_a_repository_that_does_not_exist(served: Hub, tmp_path: Path) -> None:
    (served.folder / "index.json").write_text("{}")
    done = fetch(tmp_path / "model", served.address)
    assert done.status == 1
    assert f"has no repository {REPOSITORY}, or it is private: correct `repository`, or give a token" in done.lines[-1]


def test_without_a_hub_copied_files_are_judged_by_their_structure(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    put(directory, {name: FILES[name] for name in WANTED})
    done = fetch(directory, closed_port())
    assert (done.status, done.lines[-1]) == (0, f"{REPOSITORY}: 5 files, 0.00 GB, structure right")
    assert manifest(directory)["checked"] == "structure"
    assert complete(directory)


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4000000000\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config.json": None}, "is not on this host and the hub cannot be reached"),
        ({FIRST: None, SECOND: None}, "is not on this host and the hub cannot be reached"),
        ({SECOND: None}, f"lacks {SECOND}: copy them too"),
        ({SECOND: FILES[SECOND][:-1]}, "its header says"),
        ({SECOND: FILES[SECOND] + b"x"}, "its header says"),
        ({SECOND: b""}, "is not a safetensors file"),
        ({SECOND: b"1234567"}, "is not a safetensors file"),
        ({SECOND: POINTER}, "is not a safetensors file (a Git LFS pointer, or half a file): copy it again"),
        ({SECOND: struct.pack("<Q", 2) + b"[]"}, "is not a safetensors file"),
        ({SECOND: struct.pack("<Q", 2) + b"{}"}, "is not a safetensors file"),
        ({SECOND: struct.pack("<Q", 8) + b'{"t": 1}'}, "is not a safetensors file"),
        ({SECOND: struct.pack("<Q", 1 << 62)}, "is not a safetensors file"),
        ({"model.safetensors.index.json": b"{"}, "model.safetensors.index.json"),
    ],
)
def test_what_is_wrong_with_copied_files(tmp_path: Path, changes: dict[str, bytes | None], words: str) -> None:
    directory = tmp_path / "model"
    files = {name: FILES[name] for name in WANTED} | changes
    put(directory, {name: content for name, content in files.items() if content is not None})
    with pytest.raises(PROGRAM["Failure"], match=re.escape(words)):
        PROGRAM["check_structure"](directory)


def test_a_reason_is_one_line_and_no_manifest_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    put(directory, {"config.json": b"{}", "model.safetensors": POINTER})
    done = fetch(directory, closed_port())
    assert done.status == 1
    assert done.lines[-1].startswith("ERROR model.safetensors of model is not a safetensors file")
    assert not (directory / ".stoker-manifest.json").exists()


def test_a_model_without_safetensors(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    put(directory, {"config.json": b"{}", "pytorch_model.bin": b"weights"})
    assert fetch(directory, closed_port()).status == 0
    assert set(manifest(directory)["files"]) == {"config.json", "pytorch_model.bin"}


GGUF = b"GGUF" + bytes(100)


@pytest.mark.parametrize(
    ("files", "only", "words"),
    [
        ({}, "q.gguf", "is not on this host and the hub cannot be reached"),
        ({"q.gguf": POINTER}, "q.gguf", "is not a GGUF file (a Git LFS pointer?)"),
        ({"q-00001-of-00002.gguf": GGUF}, "q-?????-of-00002.gguf", "is not on this host"),
    ],
)
def test_what_is_wrong_with_a_copied_gguf_file(tmp_path: Path, files: dict[str, bytes], only: str, words: str) -> None:
    put(tmp_path / "model", files)
    with pytest.raises(PROGRAM["Failure"], match=re.escape(words)):
        PROGRAM["check_gguf"](tmp_path / "model", only)


def test_all_parts_of_a_copied_gguf_model(tmp_path: Path) -> None:
    parts = {"q-00001-of-00002.gguf": GGUF, "q-00002-of-00002.gguf": GGUF, "other.gguf": GGUF}
    put(tmp_path / "model", parts)
    assert set(PROGRAM["check_gguf"](tmp_path / "model", "q-?????-of-00002.gguf")) == set(list(parts)[:2])

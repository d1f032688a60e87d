"""`stoker models describe` and `list`: against the lab's hub on a local port, on directories, and as a command."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.description import PROJECT, Description

from lab.internet import hub, hub_index
from lab.models.weights import safetensors
from stoker.models.card import ModelCard, read
from stoker.models.describe import CannotDescribe, from_directory, from_hub

REPOSITORY = "an/example"
CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 512, "torch_dtype": "float16",
}  # fmt: skip
WEIGHTS = safetensors({"a": "F16", "b": "I32"})
FILES = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": WEIGHTS, "README.md": b"Text.\n"}
LAB_NOTE = json.dumps({"note": "", "weights_gib": 1.5, "other_gib": 1.0}).encode()


@dataclass
class Hub:
    """The lab's hub with one repository, and the requests that came, with their tokens."""

    folder: Path
    address: str = ""
    requests: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def write(self, **files: bytes) -> str:
        """Add files; returns the commit."""
        for name, content in {**FILES, **files}.items():
            (file := self.folder / "models" / REPOSITORY / name).parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        hub_index.write_index(self.folder / "models", self.folder / "index.json")
        revision: str = json.loads((self.folder / "index.json").read_text())[REPOSITORY]["revision"]
        return revision

    def fail(self, **faults: str) -> None:
        (self.folder / "faults.json").write_text(json.dumps({"all": faults}))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    running = Hub(tmp_path / "hub")
    running.write()
    server = hub.make_server(("127.0.0.1", 0), running.folder, running.folder / "faults.json")
    handler: Any = server.RequestHandlerClass

    def note(self: BaseHTTPRequestHandler, form: str, *values: object) -> None:
        running.requests.append(self.requestline)
        running.tokens.append(self.headers.get("Authorization"))

    handler.log_message = note
    running.address = f"http://127.0.0.1:{server.server_address[1]}"
    with serving(server):
        yield running


class serving:
    """A server that answers for as long as the block lasts."""

    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *raised: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_hub_is_asked_for_one_commit(served: Hub) -> None:
    found = from_hub(REPOSITORY, "main", served.address)
    assert found.revision == served.write()
    assert found.config == CONFIG
    assert {path: file.size for path, file in found.files.items()} == {
        path: len(content) for path, content in FILES.items()
    }
    assert found.files["model.safetensors"].sha256 == sha256(WEIGHTS)
    assert found.files["config.json"].sha256 is None, "the hub has only git's checksum of small files"
    assert found.simulated_weights is None


def test_in_the_lab_the_simulated_size_is_noted(served: Hub) -> None:
    served.write(**{"lab-weights.json": LAB_NOTE})
    assert from_hub(REPOSITORY, "main", served.address).simulated_weights == 1.5 * 2**30


def test_the_token_goes_with_every_request(served: Hub) -> None:
    from_hub(REPOSITORY, "main", served.address, "secret")
    assert set(served.tokens) == {"Bearer secret"}


def refused(*arguments: Any) -> str:
    with pytest.raises(CannotDescribe) as raised:
        from_hub(*arguments)
    return str(raised.value)


@pytest.mark.parametrize("token", [None, "secret"])
def test_an_unknown_name_is_told(served: Hub, token: str | None) -> None:
    said = refused("an/other", "main", served.address, token)
    assert "there is no an/other" in said
    assert ("HF_TOKEN" in said) is (token is None)


def test_an_unknown_revision_is_told(served: Hub) -> None:
    assert "no such revision" in refused(REPOSITORY, "v9", served.address)


def test_a_revision_with_slashes_is_one_part_of_the_path(served: Hub) -> None:
    refused(REPOSITORY, "refs/pr/1", served.address)
    assert "/revision/refs%2Fpr%2F1?" in served.requests[0]


@pytest.mark.parametrize(("token", "words"), [(None, "give a token"), ("secret", "the token has no access")])
def test_a_gated_model_is_told(served: Hub, token: str | None, words: str) -> None:
    served.fail(gated="another")
    said = refused(REPOSITORY, "main", served.address, token)
    assert "gated" in said
    assert words in said


def test_a_hub_that_is_out_of_order_is_told(served: Hub) -> None:
    served.fail(unavailable="")
    assert "answers 503" in refused(REPOSITORY, "main", served.address)


def test_a_hub_that_is_not_there_is_told() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert "cannot be reached" in refused(REPOSITORY, "main", address)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"sha": "1", "siblings": [3]}'])
def test_what_is_no_hub_is_told(content: bytes) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with serving(server := HTTPServer(("127.0.0.1", 0), Page)):
        assert "hub" in refused(REPOSITORY, "main", f"http://127.0.0.1:{server.server_address[1]}")


def test_a_repository_without_config_is_told(served: Hub) -> None:
    (served.folder / "models" / REPOSITORY / "config.json").unlink()
    hub_index.write_index(served.folder / "models", served.folder / "index.json")
    assert "no config.json" in refused(REPOSITORY, "main", served.address)


def test_a_directory_is_read_with_checksums_and_headers(directory: Path) -> None:
    (directory / ".cache").mkdir()
    (directory / ".cache" / "part").write_text("x")
    found = from_directory(REPOSITORY, directory)
    assert {path: file.sha256 for path, file in found.files.items()} == {
        path: sha256(content) for path, content in FILES.items()
    }
    assert found.tensors == {"F16": 16, "I32": 32}
    assert (found.revision, found.source.revision) == ("main", "not known; the hub's default branch was assumed")


def test_the_commit_of_a_fetched_directory_is_known(directory: Path) -> None:
    (directory / ".stoker-manifest.json").write_text(json.dumps({"commit": "3" * 40}))
    assert from_directory(REPOSITORY, directory).revision == "3" * 40
    assert from_directory(REPOSITORY, directory, "v1").revision == "v1"


def test_the_labs_directory_is_simulated(directory: Path) -> None:
    (directory / "lab-weights.json").write_bytes(LAB_NOTE)
    assert from_directory(REPOSITORY, directory).simulated_weights == 1.5 * 2**30


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", WEIGHTS[:-1], "its header says"),
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[1]", "no model's configuration"),
        ("config.json", None, "no config.json"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": 5}}', "names 5, which is not there"),
    ],
)
def test_a_directory_with_half_a_model_is_told(directory: Path, name: str, content: bytes | None, words: str) -> None:
    (directory / name).unlink(missing_ok=True)
    if content is not None:
        (directory / name).write_bytes(content)
    with pytest.raises(CannotDescribe, match=words):
        from_directory(REPOSITORY, directory)


def models(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`stoker models ...` as a person runs it."""
    clean = {
        key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HF_ENDPOINT", "STOKER_GROUP_DATA")
    }
    return subprocess.run(
        [sys.executable, "-m", "stoker", "models", *arguments],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_describe_writes_a_card_that_can_be_read(served: Hub, tmp_path: Path) -> None:
    done = models(
        "describe",
        REPOSITORY,
        "--output",
        "cards/an--example.json",
        cwd=tmp_path,
        HF_ENDPOINT=served.address,
        HF_TOKEN="t",
    )
    assert done.returncode == 0, done.stderr
    found = read(tmp_path / "cards/an--example.json")
    assert isinstance(found, ModelCard)
    assert found.revision in done.stderr
    assert "sizes of the safetensors files" in done.stderr
    assert set(served.tokens) == {"Bearer t"}


def test_describe_follows_the_description(served: Hub, tmp_path: Path) -> None:
    """Hub, token and revision are those of group data."""
    description = Description.copy(tmp_path)
    description.append("group_data/all.py", f'mirrors = {{"hub": "{served.address}"}}\nkeys = {{"hub": "OUR_TOKEN"}}\n')
    description.append(
        "group_data/all.py", f'models["x"] = {{"repository": "{REPOSITORY}", "directory": "x", "revision": "v9"}}\n'
    )
    done = models("describe", REPOSITORY, cwd=tmp_path, OUR_TOKEN="ours", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no such revision" in done.stderr
    assert served.tokens == ["Bearer ours"]
    again = models("describe", REPOSITORY, "--revision", "main", cwd=tmp_path)
    assert json.loads(again.stdout)["repository"] == REPOSITORY


def test_describe_a_directory(directory: Path, tmp_path: Path) -> None:
    done = models("describe", REPOSITORY, "--from", str(directory), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tensors"] == {"F16": 16, "I32": 32}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-owner",), "OWNER/NAME"),
        ((REPOSITORY, "--from", "nowhere"), "no such directory"),
        ((REPOSITORY, "-i", "none.py"), "no such file"),
        ((REPOSITORY, "--endpoint", "hub.example.org"), "http://"),
        ((REPOSITORY, "--revision", "a branch"), "'a branch' is no revision"),
    ],
)
def test_bad_input_is_status_3(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = models("describe", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert words in done.stderr


def test_a_failure_is_status_1(tmp_path: Path) -> None:
    done = models("describe", REPOSITORY, "--endpoint", "http://127.0.0.1:9", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be reached" in done.stderr


def test_list_shows_every_model_with_its_source(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.append("group_data/all.py", 'models["x"] = {"repository": "an/example", "directory": "x"}\n')
    description.edit(
        "group_data/all.py",
        '"directory": "Qwen2.5-14B-Instruct-GPTQ-Int8",',
        f'"directory": "Qwen2.5-14B-Instruct-GPTQ-Int8", "revision": "{"1" * 40}",',
    )
    done = models("list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    about = dict(entry.split(": ", 1) for entry in done.stdout.replace("\n    ", " ").splitlines())
    assert "5.73 GB = 5.34 GiB (rounded sizes" in about["llama3.1-8b"]
    assert "asks for commit 111111111111" in about["qwen2.5-14b"]
    assert "1.5 to 2.0 GiB" in about["bge-m3"]
    assert "stoker models describe an/example" in about["x"]


def test_list_tells_what_is_wrong_with_a_card(tmp_path: Path) -> None:
    description = Description.copy(tmp_path)
    description.append("group_data/cards/an--example.json", "{}")
    done = models("list", cwd=tmp_path)
    assert done.returncode == 3
    assert "group_data/cards/an--example.json: repository" in done.stderr

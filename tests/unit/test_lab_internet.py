"""The pure parts of the lab's internet: index files, versions, layers, the hub's answers."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from lab.internet import fault, hub, hub_index
from lab.internet.aptroot import find_mirror, get_field, parse_uris
from lab.internet.debpack import Deb, unit_scripts
from lab.internet.debrepo import Entry, packages_text, pool_path, release_text, without_fields
from lab.internet.docker_packages import RECIPES, upstream_version
from lab.internet.parts import Builder, Part, Store, digest_inputs
from lab.internet.registry import ImageConfig, Layer, add_image, write_layer
from lab.internet.shell import BuildError
from lab.internet.toolkit_packages import assign
from lab.internet.wheels import console_scripts

ONE_LINE = """
# deb http://commented.example/debian trixie main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bookworm main contrib
"""
DEB822 = """
Types: deb
# URIs: http://commented.example/debian
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
"""


def test_mirror_is_found_in_both_formats_of_apt_sources() -> None:
    one_line = find_mirror([ONE_LINE], "bookworm")
    deb822 = find_mirror(["", DEB822], "bookworm")
    assert one_line is not None
    assert (one_line.uri, one_line.signed_by) == ("http://mirror.example/debian", "/k.gpg")
    assert deb822 is not None
    assert deb822.uri == "http://mirror.example/debian"
    assert find_mirror([ONE_LINE, DEB822], "trixie") is None


def test_disabled_source_is_not_a_mirror() -> None:
    assert find_mirror([DEB822.replace("Types: deb", "Enabled: no\nTypes: deb", 1)], "bookworm") is None


def test_uris_that_apt_prints_become_packages() -> None:
    text = "'http://m/pool/main/d/docker.io_28.deb' docker-ce_5%3a28.5.2-1~debian_amd64.deb 12 SHA256:ab\n"
    assert parse_uris(text) == [("docker-ce", "5:28.5.2-1~debian", "docker-ce_5%3a28.5.2-1~debian_amd64.deb", 12)]


@pytest.mark.parametrize(
    ("debian", "epoch", "expected"),
    [
        ("28.5.2+dfsg4-5", "5:", "5:28.5.2-1~debian.13~trixie"),
        ("2.1.9+ds1-5", "", "2.1.9-1~debian.13~trixie"),
        ("2.40.3-3", "", "2.40.3-1~debian.13~trixie"),
        ("1:1.7.24~ds1-6+deb13u1", "", "1.7.24-1~debian.13~trixie"),
    ],
)
def test_docker_versions_have_upstreams_form(debian: str, epoch: str, expected: str) -> None:
    assert upstream_version(debian, "trixie", 13, epoch) == expected


def test_docker_packages_conflict_with_the_distributions_own() -> None:
    relations = {recipe.name: recipe.relations for recipe in RECIPES}
    assert "docker.io" in relations["docker-ce"]["Conflicts"]
    assert "runc" in relations["containerd.io"]["Provides"]


def test_every_file_of_the_toolkit_has_one_package() -> None:
    owners = assign(["usr/bin/nvidia-ctk", "usr/bin/nvidia-container-runtime-hook", "usr/bin/nvidia-container-cli"])
    assert owners["nvidia-container-toolkit-base"] == ["usr/bin/nvidia-ctk"]
    assert owners["nvidia-container-toolkit"] == ["usr/bin/nvidia-container-runtime-hook"]
    assert owners["libnvidia-container-tools"] == ["usr/bin/nvidia-container-cli"]


def test_stanza_loses_fields_with_their_continuation_lines() -> None:
    stanza = "Package: a\nFilename: old\n more\nDescription: b\n long\nSize: 1"
    assert without_fields(stanza, ("Filename", "Size")) == "Package: a\nDescription: b\n long"
    assert get_field(stanza, "Description") == "b"
    assert get_field(stanza, "Nothing") == ""


def test_index_files() -> None:
    text = packages_text([Entry("Package: b", "pool/b.deb", 2, "bb"), Entry("Package: a", "pool/a.deb", 1, "aa")])
    assert text.startswith("Package: a\nFilename: pool/a.deb\nSize: 1\nSHA256: aa\n\nPackage: b\n")
    release = release_text({"Suite": "trixie"}, {"main/Packages": b"x"}, datetime(2026, 11, 21, 3, 0, tzinfo=UTC))
    assert "Date: Sat, 21 Nov 2026 03:00:00 UTC\n" in release
    assert f" {hashlib.sha256(b'x').hexdigest()}        1 main/Packages\n" in release


def test_pool_paths_are_debians() -> None:
    assert pool_path("curl", "curl_8.deb") == "pool/main/c/curl/curl_8.deb"
    assert pool_path("libc6", "libc6_2.deb") == "pool/main/libc/libc6/libc6_2.deb"


def test_control_file_and_scripts() -> None:
    deb = Deb("docker-ce", "5:28.5.2-1", {"Depends": "iptables", "Recommends": ""})
    assert deb.file_name() == "docker-ce_28.5.2-1_amd64.deb"
    head = "Package: docker-ce\nVersion: 5:28.5.2-1\nArchitecture: amd64\n"
    assert deb.control(12) == f"{head}Installed-Size: 12\nDepends: iptables\n"
    assert "deb-systemd-invoke start a.service b.path" in unit_scripts(["a.service", "b.path"])["postinst"]


def test_console_scripts_keep_their_case() -> None:
    assert console_scripts("[console_scripts]\nhf = a.b:main\nHF=c:d\n") == {"hf": "a.b:main", "HF": "c:d"}
    assert console_scripts("[other]\nx = y\n") == {}


def _filler(text: str) -> Builder:
    def build(folder: Path, needed: Mapping[str, Path]) -> None:
        (folder / "file").write_text(text + "".join((path / "file").read_text() for path in needed.values()))

    return build


def test_part_is_built_once_and_again_when_its_input_changes(tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_text("1")
    store = Store(tmp_path / "served")

    def parts() -> list[Part]:
        first = Part("first", _filler("a"), (source,), links={"deep/first": "."})
        return [first, Part("second", _filler("b"), (), needs=("first",), links={"second": "."})]

    assert store.build(parts(), complete=True) == ["first", "second"]
    assert (store.served / "second/file").read_text() == "ba"
    assert not os.readlink(store.served / "deep/first").startswith("/")
    assert store.build(parts(), complete=True) == []
    source.write_text("2")
    assert store.build(parts(), complete=True) == ["first", "second"]
    assert len(list(store.folder.iterdir())) == 2


def test_failed_part_leaves_nothing_that_counts_as_built(tmp_path: Path) -> None:
    def broken(folder: Path, needed: Mapping[str, Path]) -> None:
        (folder / "half").write_text("")
        raise BuildError("no mirror")

    store = Store(tmp_path)
    with pytest.raises(BuildError, match="no mirror"):
        store.build([Part("broken", broken, ())], complete=True)
    assert store.build([Part("broken", _filler("whole"), (), links={"it": "."})], complete=True) == ["broken"]
    assert not (tmp_path / "it/half").exists()


def test_digest_sees_content_names_and_the_executable_bit(tmp_path: Path) -> None:
    file = tmp_path / "tree/file"
    file.parent.mkdir()
    file.write_text("1")
    digests = [digest_inputs([tmp_path / "tree"])]
    file.chmod(0o755)
    digests.append(digest_inputs([tmp_path / "tree"]))
    file.rename(file.with_name("other"))
    digests.append(digest_inputs([tmp_path / "tree"]))
    assert len(set(digests)) == 3


def test_layer_is_the_same_for_the_same_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/a").write_text("a")
    (tree / "link").symlink_to("etc/a")
    first = write_layer(tree, tmp_path / "one", "x")
    os.utime(tree / "etc/a", (1, 1))
    second = write_layer(tree, tmp_path / "two", "x")
    assert first.digest == second.digest
    assert first.digest == f"sha256:{hashlib.sha256(first.file.read_bytes()).hexdigest()}"
    with tarfile.open(first.file) as tar:
        assert tar.getnames() == [".", "etc", "etc/a", "link"]


def test_image_in_the_registrys_storage(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    layer = write_layer(tmp_path / "tree", tmp_path / "layers", "x")
    layer.save(tmp_path / "layers/layer.json")
    layer = Layer.load(tmp_path / "layers/layer.json")
    config = ImageConfig(entrypoint=["vllm", "serve"], labels={"stoker.lab": "simulated"})
    digest = add_image(tmp_path / "storage", "vllm/vllm-openai", ["v1"], config, [layer])
    root = tmp_path / "storage/docker/registry/v2"
    assert (root / "repositories/vllm/vllm-openai/_manifests/tags/v1/current/link").read_text() == digest
    value = digest.removeprefix("sha256:")
    manifest = json.loads((root / "blobs/sha256" / value[:2] / value / "data").read_text())
    assert manifest["layers"][0]["digest"] == layer.digest
    named = manifest["config"]["digest"].removeprefix("sha256:")
    image = json.loads((root / "blobs/sha256" / named[:2] / named / "data").read_text())
    assert image["config"] == {"Entrypoint": ["vllm", "serve"], "Labels": {"stoker.lab": "simulated"}}
    assert image["rootfs"]["diff_ids"] == [layer.diff_id]


def test_checksums_of_the_hub() -> None:
    assert hub_index.git_blob_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    weights = hub_index.describe_file("model.safetensors", b"w")
    assert weights["sha256"] == hashlib.sha256(b"w").hexdigest()
    assert "sha256" not in hub_index.describe_file("1_Pooling/config.json", b"{}")


@pytest.mark.parametrize(
    ("header", "start", "length"),
    [
        (None, 0, 10),
        ("bytes=4-", 4, 6),
        ("bytes=2-3", 2, 2),
        ("bytes=-3", 7, 3),
        ("bytes=2-99", 2, 8),
        ("bytes=-", 0, 10),
    ],
)
def test_ranges(header: str | None, start: int, length: int) -> None:
    found = hub.parse_range(header, 10)
    assert (found.start, found.length) == (start, length)


def test_range_behind_the_end_is_refused() -> None:
    with pytest.raises(hub.Refusal, match="416"):
        hub.parse_range("bytes=10-", 10)


def test_faults_are_set_and_cleared() -> None:
    faults = fault.change({}, "all", "slow=10")
    faults = fault.change(faults, "a/b", "gated")
    assert faults == {"all": {"slow": "10"}, "a/b": {"gated": ""}}
    assert fault.change(faults, "all", "clear") == {"a/b": {"gated": ""}}
    with pytest.raises(ValueError, match="unknown fault 'odd'"):
        fault.change({}, "all", "odd")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A hub with one repository: its address, and its fault file."""
    repository = tmp_path / "models/org/name"
    (repository / "1_Pooling").mkdir(parents=True)
    (repository / "config.json").write_text("{}")
    (repository / "1_Pooling/config.json").write_text("{}")
    (repository / "model.safetensors").write_bytes(b"0123456789")
    hub_index.write_index(tmp_path / "models", tmp_path / "index.json")
    server = hub.make_server(("127.0.0.1", 0), tmp_path, tmp_path / "faults.json")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "faults.json"
    server.shutdown()
    server.server_close()
    thread.join()


def _status(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urlopen(Request(url, headers=headers)) as answer:
            return answer.status, ""
    except HTTPError as error:
        with error:
            return error.code, error.headers.get("X-Error-Code", "")


def test_hub_describes_and_sends_files(served: tuple[str, Path]) -> None:
    address, _ = served
    with urlopen(f"{address}/api/models/org/name/revision/main?blobs=true") as answer:
        info = json.load(answer)
    assert [sibling["rfilename"] for sibling in info["siblings"]] == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
    ]
    with urlopen(
        Request(f"{address}/org/name/resolve/main/model.safetensors", headers={"Range": "bytes=4-"})
    ) as answer:
        assert answer.status == 206
        assert answer.headers["X-Repo-Commit"] == info["sha"]
        assert answer.headers["X-Linked-Size"] == "10"
        assert answer.read() == b"456789"
    with urlopen(f"{address}/api/models/org/name/tree/main") as answer:
        assert [entry["type"] for entry in json.load(answer)] == ["directory", "file", "file"]


def test_hub_refuses_as_the_real_one_does(served: tuple[str, Path]) -> None:
    address, faults = served
    assert _status(f"{address}/api/models/no/such") == (401, "RepoNotFound")
    assert _status(f"{address}/api/models/no/such", Authorization="Bearer t") == (404, "RepoNotFound")
    assert _status(f"{address}/api/models/org/name/revision/odd") == (404, "RevisionNotFound")
    assert _status(f"{address}/org/name/resolve/main/no") == (404, "EntryNotFound")
    faults.write_text(json.dumps({"org/name": {"gated": "right"}}))
    file = f"{address}/org/name/resolve/main/config.json"
    assert _status(file) == (401, "GatedRepo")
    assert _status(file, Authorization="Bearer wrong") == (403, "GatedRepo")
    assert _status(file, Authorization="Bearer right") == (200, "")
    faults.write_text(json.dumps({"all": {"unavailable": ""}}))
    assert _status(file)[0] == 503

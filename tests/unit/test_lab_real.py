"""The real engines of the lab: what is built when, how the image is packed, what a machine needs for them. Nothing is built here."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.commands import ROOT, run

from lab.internet import build
from lab.internet.parts import Part, Store, digests
from lab.internet.registry import OCI_MANIFEST_TYPE, OCI_ZSTD_LAYER_TYPE, ImageConfig, Layer, add_image, write_layer
from lab.internet.shell import BuildError
from lab.internet.wheels import download
from lab.machines import requirements
from lab.machines.idle import make_idle
from lab.real import settings, vllm_cpu


class FakeKey:
    def ensure(self) -> str:
        return "fingerprint"


@pytest.fixture
def internet(tmp_path: Path) -> build.Internet:
    made = build.Internet(tmp_path)
    made.key = FakeKey()  # type: ignore[assignment]
    return made


def names(parts: list[Part]) -> set[str]:
    return {part.name for part in parts}


def have(internet: build.Internet, *built: str) -> list[Part]:
    """All parts, of which some are built already."""
    parts = internet.parts()
    for name in built:
        internet.store.path(name, digests(parts)[name]).mkdir(parents=True)
    return parts


def test_without_being_asked_no_real_engine_is_built(internet: build.Internet) -> None:
    chosen = build.chosen(internet, internet.parts(), [], real=False, engines=False)
    assert not names(chosen) & {build.VLLM, build.LLAMA, "models-tiny"}
    registry = next(part for part in chosen if part.name == "registry")
    assert build.VLLM not in registry.needs


def test_real_brings_vllm_with_its_models_and_engines_the_rest(internet: build.Internet) -> None:
    parts = internet.parts()
    real = names(build.chosen(internet, parts, [], real=True, engines=False))
    assert real == names(parts) - {build.LLAMA}
    assert names(build.chosen(internet, parts, [], real=True, engines=True)) == names(parts)


def test_what_was_built_once_stays(internet: build.Internet) -> None:
    parts = have(internet, build.VLLM, build.LLAMA)
    assert names(build.chosen(internet, parts, [], real=False, engines=False)) == names(parts)


def test_a_store_keeps_what_is_up_to_date_and_drops_what_is_not(tmp_path: Path) -> None:
    def fill(folder: Path, needed: object) -> None:
        (folder / "file").write_text("x")

    store = Store(tmp_path)
    wanted, other = Part("wanted", fill, ()), Part("other", fill, (), "new")
    store.build([other], complete=False)
    store.build([Part("other", fill, (), "old")], complete=False)
    store.build([wanted], complete=True, keep=[wanted, other])
    assert {folder.name for folder in store.folder.iterdir()} == {
        store.path(name, value).name for name, value in digests([wanted, other]).items()
    }


def test_a_layer_packed_by_zstd_has_an_oci_manifest(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x" * 1000)
    layer = write_layer(tmp_path / "tree", tmp_path / "layers", "x", compress="zstd")
    layer.save(tmp_path / "layers/layer.json")
    layer = Layer.load(tmp_path / "layers/layer.json")
    assert layer.media_type == OCI_ZSTD_LAYER_TYPE
    plain = subprocess.run(["zstd", "-dc", layer.file], capture_output=True, check=True).stdout
    assert layer.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert layer.size == layer.file.stat().st_size
    digest = add_image(tmp_path / "storage", "a/b", ["v1"], ImageConfig(), [layer]).removeprefix("sha256:")
    manifest = json.loads(
        (tmp_path / "storage/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data").read_text()
    )
    assert (manifest["mediaType"], manifest["layers"][0]["mediaType"]) == (OCI_MANIFEST_TYPE, OCI_ZSTD_LAYER_TYPE)


def test_both_ways_of_packing_pack_the_same(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    first = write_layer(tmp_path / "tree", tmp_path / "one", "x")
    second = write_layer(tmp_path / "tree", tmp_path / "two", "x", compress="zstd")
    assert first.diff_id == second.diff_id
    with gzip.open(first.file) as plain, tarfile.open(fileobj=plain) as tar:
        assert tar.getnames() == [".", "file"]


def test_a_wheel_for_another_python_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a-1.0-cp313-cp313-linux_x86_64.whl", "b-1.0-py3-none-any.whl", "c-1.0-cp38-abi3-linux_x86_64.whl"):
        (tmp_path / name).touch()
    asked: list[str] = []
    monkeypatch.setattr("lab.internet.wheels.python_with_pip", lambda: "python3")
    monkeypatch.setattr("lab.internet.wheels.run", lambda argv: asked.extend(map(str, argv)))
    found = download(["a==1.0", "b==1.0", "c==1.0"], tmp_path, "3.11", find_links="/wheels")
    assert [file.name[0] for file in found] == ["b", "c"]
    assert asked[-1:] == ["a==1.0"]
    assert asked[asked.index("--find-links") + 1] == "/wheels"


def test_when_torch_cannot_be_had_the_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*arguments: object, **options: object) -> list[Path]:
        raise BuildError("No matching distribution found for torch==2.13.0+cpu")

    monkeypatch.setattr("lab.internet.wheels.download", nothing)
    with pytest.raises(
        BuildError, match=r"the CPU build of torch \(torch==2\.13\.0\+cpu\).*set STOKER_LAB_TORCH to a folder"
    ):
        vllm_cpu.build([], tmp_path, _root_without_packages(tmp_path, monkeypatch))


def _root_without_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("lab.internet.rootfs.extract", lambda packages, root: None)
    monkeypatch.setattr("lab.internet.rootfs.finish", lambda root: None)
    folder = tmp_path / "part"
    folder.mkdir()
    return folder


def test_every_pin_is_exact_and_names_no_place() -> None:
    pins = settings.requirements(vllm_cpu.REQUIREMENTS)
    assert len(pins) > 100
    for pin in pins:
        name, _, version = pin.partition("==")
        assert name
        assert version
        assert not set(pin) & set("/@: ")


def test_the_image_says_that_it_is_real_and_caps_the_cache() -> None:
    config = vllm_cpu.image_config()
    assert config.labels == {"stoker.lab": "real-cpu"}
    assert config.env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert config.env["PATH"].startswith("/opt/vllm/bin:")


def test_a_machine_with_too_little_memory_is_told_before_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2_000_000}[name])
    with pytest.raises(Exception, match=r"16 GB of memory are needed for five real engines, there are 8\.2 GB"):
        requirements.check(real=True)
    requirements.check()


def test_enter_without_a_root_says_what_builds_it(tmp_path: Path) -> None:
    done = run(str(ROOT / "lab/real/enter"), str(tmp_path / "none"), "--", "true")
    assert done.code == 3
    assert "lab/up --real builds it" in done.err


@pytest.mark.parametrize(
    ("mounts", "cgroup", "file"),
    [
        ("cgroup {root}/cpu cgroup rw,cpu 0 0", "1:cpu:/docker/abc", "cpu/docker/abc"),
        ("cgroup {root}/c cgroup rw,cpu,cpuacct 0 0", "1:cpu,cpuacct:/docker/abc\n0::/docker/abc", "c/docker/abc"),
        ("cgroup2 {root}/all cgroup2 rw 0 0", "0::/docker/abc/init.scope", "all/docker/abc"),
    ],
    ids=["v1", "v1 together", "v2, moved by systemd"],
)
def test_a_machine_is_put_behind_everything_else(tmp_path: Path, mounts: str, cgroup: str, file: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(cgroup + "\n")
    (tmp_path / "mounts").write_text(mounts.format(root=tmp_path) + "\n")
    assert not make_idle(7, "abc", tmp_path)
    (tmp_path / file).mkdir(parents=True)
    (tmp_path / file / "cpu.idle").write_text("0")
    assert make_idle(7, "abc", tmp_path)
    assert (tmp_path / file / "cpu.idle").read_text() == "1"


def test_what_was_entered_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """A test run that is killed must leave no engine behind. The root is this machine's own programs, read-only."""
    root = tmp_path / "root"
    for name in ("opt", "dev", "sys", "tmp", "root", "proc", "usr"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    started = f"""
import subprocess, sys, time
subprocess.Popen([{str(ROOT / "lab/real/enter")!r}, {str(root)!r}, "--bind", "/usr", "/usr", "--", "sh", "-c", "echo up; exec sleep 120"])
sys.stdin.read()
"""
    starter = subprocess.Popen(
        [sys.executable, "-c", started], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == "up\n"
    starter.kill()
    # The pipe ends when the last process that has it is gone.
    assert starter.communicate(timeout=20)[0] == ""

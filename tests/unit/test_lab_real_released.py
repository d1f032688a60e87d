"""lab/real/released.py against wheels made here: what it keeps, and what it says when there is nothing to get."""

from __future__ import annotations

import importlib.metadata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.internet.shell import BuildError
from lab.real.released import COMPANIONS, fetch

SERVE = "vllm/entrypoints/cli/serve.py"
Publish = Callable[..., None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a wheel where pip is configured to look, which is a folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def put(name: str, version: str, *files: str, tags: str = "py3-none-any") -> None:
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-{tags}.whl", "w") as wheel:
            for file in files:
                wheel.writestr(file, "content = 1\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    for companion in COMPANIONS:
        name, _, version = companion.partition("==")
        put(name, version, f"{name}/__init__.py")
    return put


def test_python_files_and_metadata_stay(publish: Publish, tmp_path: Path) -> None:
    publish("vllm", "9.9.9", SERVE, "vllm/_C.abi3.so", "vllm/t.json", tags="cp38-abi3-manylinux_2_31_x86_64")
    cache = tmp_path / "cache"
    folder = fetch("9.9.9", cache)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert {file for file in files if file.startswith("vllm/")} == {SERVE}
    assert {"diskcache/__init__.py", "gguf/__init__.py", "complete.json"} <= files
    (found,) = importlib.metadata.distributions(name="vllm", path=[str(folder)])
    assert found.version == "9.9.9"
    assert list(cache.iterdir()) == [folder], "the wheel and the working folder are gone"


def test_a_second_time_costs_nothing(publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("vllm", "9.9.9", SERVE)
    folder = fetch("9.9.9", tmp_path / "cache")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert fetch("9.9.9", tmp_path / "cache") == folder


def test_half_a_folder_is_made_anew(publish: Publish, tmp_path: Path) -> None:
    publish("vllm", "9.9.9", SERVE)
    left = tmp_path / "cache/vllm-9.9.9/vllm"
    left.mkdir(parents=True)
    (left / "old.py").write_text("")
    folder = fetch("9.9.9", tmp_path / "cache")
    assert (folder / SERVE).is_file()
    assert not (folder / "vllm/old.py").exists()


def test_a_version_that_does_not_exist(publish: Publish, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"could not be downloaded \(vllm==9.9.8, .*pip config list"):
        fetch("9.9.8", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_something_else_under_its_name(publish: Publish, tmp_path: Path) -> None:
    publish("vllm", "9.9.9", "vllm/__init__.py")
    with pytest.raises(BuildError, match=r"what pip downloaded as vllm 9\.9\.9 has no `vllm serve`"):
        fetch("9.9.9", tmp_path / "cache")

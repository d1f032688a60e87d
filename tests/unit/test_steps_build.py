"""Images that are built on the hosts: when, from what, by which command."""

from __future__ import annotations

import base64
import io
import shlex
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.fleet import Data, instances, make_fleet
from support.states import NOW, bare, converged, fleet_and_host

from stoker.facts.probe import Questions, script
from stoker.facts.state import HostState, parse
from stoker.plan.checks import disks
from stoker.plan.downloads import addresses
from stoker.plan.image_sizes import image_size
from stoker.plan.look import Look
from stoker.spec.fleet import Fleet, Host
from stoker.spec.problems import SpecError
from stoker.steps import build, images
from stoker.steps.action import Action

IMAGE = "stoker/transformers:5.19.0-1"
BASE = "pytorch/pytorch:2.10.0-cuda12.6-cudnn9-runtime"


def with_ours(data: Data) -> None:
    instances(data, "llm")[0]["image"] = IMAGE


def host_and_state(change: Callable[[Data], object] = lambda data: None) -> tuple[Fleet, Host, HostState]:
    def both(data: Data) -> None:
        with_ours(data)
        change(data)

    fleet, host = fleet_and_host("llm", both)
    return fleet, host, bare(host)


def words(host: Host, state: HostState) -> list[str]:
    return [str(action) for action in images.actions(host, state)]


def test_a_bare_host_pulls_the_base_and_builds() -> None:
    _, host, state = host_and_state()
    directory = f"/var/lib/stoker/build/transformers-{build.identity(IMAGE)}"
    assert words(host, state) == [
        "pull vllm/vllm-openai:v0.19.1",
        "pull nginx:1.30.6-alpine",
        f"pull {BASE}",
        f"bring the 4 files of {IMAGE} to {directory}",
        f"build {IMAGE}",
    ]
    assert [action.long for action in images.actions(host, state)] == [True, True, True, False, True]


def test_what_is_built_from_the_same_files_is_left_alone_and_so_is_its_base() -> None:
    fleet, host, _ = host_and_state()
    state = converged(fleet, host)
    assert BASE not in state.images
    assert images.actions(host, state) == []
    assert build.lacking(host, state) == []


def test_an_edited_file_means_a_new_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fleet, host, _ = host_and_state()
    state = converged(fleet, host)
    for path, text in build.context(IMAGE).items():
        file = tmp_path / "transformers" / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + "# edited\n" if path == "serve.py" else text)
    monkeypatch.setattr(build, "IMAGES", tmp_path)
    assert words(host, state)[-1] == f"build {IMAGE}: its files have changed"
    assert f"pull {BASE}" in words(host, state)
    assert f"pull {BASE}" not in words(host, replace(state, images={**state.images, BASE: "sha256:1"}))


def test_an_image_that_was_loaded_by_hand_is_taken() -> None:
    fleet, host, _ = host_and_state()
    assert images.actions(host, replace(converged(fleet, host), contexts={IMAGE: ""})) == []


def the_build(change: Callable[[Data], object] = lambda data: None) -> tuple[Action, Action]:
    _, host, state = host_and_state(change)
    bring, made = images.actions(host, state)[-2:]
    return bring, made


def arguments(action: Action) -> dict[str, str]:
    found = shlex.split(action.script)
    pairs = [found[at + 1] for at, word in enumerate(found) if word == "--build-arg"]
    return dict(pair.split("=", 1) for pair in pairs)


def test_all_its_files_travel_as_one_set() -> None:
    bring, made = the_build()
    assert bring.stdin is not None
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(bring.stdin))) as archive:
        assert sorted(archive.getnames()) == ["Dockerfile", "constraints.txt", "requirements.txt", "serve.py"]
    found = shlex.split(made.script)
    assert found[1:7] == ["docker", "build", "--tag", IMAGE, "--label", f"stoker.context={build.identity(IMAGE)}"]
    assert f"/var/lib/stoker/build/transformers-{build.identity(IMAGE)}" in found


def test_packages_come_from_where_the_description_says() -> None:
    assert arguments(the_build()[1]) == {"PIP_INDEX_URL": "https://pypi.org/simple"}

    def change(data: Data) -> None:
        data["all"]["mirrors"]["python"] = "http://mirror.lan:8080/simple"
        data["all"]["proxy"] = {"http": "http://proxy:3128", "https": "http://proxy:3128", "no_proxy": ["mirror.lan"]}

    assert arguments(the_build(change)[1]) == {
        "PIP_INDEX_URL": "http://mirror.lan:8080/simple",
        "PIP_TRUSTED_HOST": "mirror.lan",
        "HTTP_PROXY": "http://proxy:3128",
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": "mirror.lan",
    }


def test_the_directory_goes_when_the_image_is_built_and_stays_when_not(tmp_path: Path) -> None:
    _, made = the_build()
    directory = f"/var/lib/stoker/build/transformers-{build.identity(IMAGE)}"
    there = tmp_path / "context"
    program = made.script.replace(directory, str(there))
    for code, stays in ((1, True), (0, False)):
        there.mkdir(exist_ok=True)
        done = subprocess.run(
            ["bash", "-c", f"docker() {{ return {code}; }}; export -f docker; {program}"], check=False
        )
        assert (done.returncode, there.exists()) == (code, stays)


def test_the_mirror_of_packages_is_asked_for_only_when_something_is_built() -> None:
    fleet, host, state = host_and_state()
    assert {"https://pypi.org/simple", "https://registry-1.docker.io"} <= set(addresses(host, state))
    assert addresses(host, converged(fleet, host)) == {}
    there = replace(
        state, images=dict.fromkeys([*host.images(), BASE], "sha256:1"), contexts={IMAGE: "of another time"}
    )
    assert "https://pypi.org/simple" in addresses(host, there)
    assert "https://registry-1.docker.io" not in addresses(host, there)
    _, plain = fleet_and_host("llm")
    assert "https://pypi.org/simple" not in addresses(plain, bare(plain))


def test_the_disk_must_take_the_base_too() -> None:
    fleet, host, state = host_and_state()
    assert image_size(host, IMAGE).unpacked < image_size(host, BASE).unpacked

    def named(one: HostState) -> set[str]:
        return {need.what for need in disks.disk_needs(Look(host, one, NOW))}

    assert {IMAGE, BASE} <= named(state)
    assert not {IMAGE, BASE} & named(converged(fleet, host))


@pytest.mark.parametrize("image", ["stoker/no-such:1", "stoker/transformers@sha256:" + "0" * 64])
def test_an_image_of_ours_that_cannot_be_built_is_refused_at_once(image: str) -> None:
    def change(data: Data) -> None:
        instances(data, "llm")[0]["image"] = image

    with pytest.raises(SpecError) as refused:
        make_fleet(change)
    assert "stoker/" in str(refused.value)


def test_the_label_is_asked_of_the_images_that_are_built(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\ncase "$*" in *stoker.context*stoker/*) echo 0123456789abcdef;; *"image inspect"*) echo sha256:1;; esac\n'
    )
    docker.chmod(0o755)
    text = script(Questions(images=[IMAGE, BASE], built=[IMAGE]))
    environment = {"PATH": f"{tmp_path}:/usr/sbin:/usr/bin:/bin", "HOME": str(tmp_path), "DOCKER_HOST": "elsewhere"}
    done = subprocess.run(["sh", "-c", text], env=environment, capture_output=True, text=True, check=True)
    state = parse(done.stdout.splitlines())
    assert state.contexts == {IMAGE: "0123456789abcdef"}
    assert set(state.images) == {IMAGE, BASE}

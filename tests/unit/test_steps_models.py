"""How model files are fetched: by which image, with which secrets and settings."""

from __future__ import annotations

import base64
import io
import shlex
import tarfile
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.fleet import Data, instances
from support.states import bare, converged, file_state, fleet_and_host

from stoker.spec.fleet import Host
from stoker.steps import models
from stoker.steps.action import Action, File, write_files

TOKEN = "hf_a_secret"
QWEN = "Qwen2.5-14B-Instruct-GPTQ-Int8"


def actions(change: Callable[[Data], object] = lambda data: None, token: str | None = None) -> list[Action]:
    _, host = fleet_and_host("llm", change)
    return models.actions(host, bare(host), token)


def words(action: Action) -> list[str]:
    return shlex.split(action.script)


def environment(action: Action) -> dict[str, str]:
    found = words(action)
    pairs = [found[index + 1] for index, word in enumerate(found) if word == "--env"]
    return dict(pair.split("=", 1) for pair in pairs)


def files_in(action: Action) -> dict[str, tuple[str, str]]:
    """Name -> mode and text of what an action carries to the host."""
    assert action.stdin is not None
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(action.stdin))) as archive:
        found = {}
        for entry in archive.getmembers():
            file = archive.extractfile(entry)
            assert file is not None
            found[entry.name] = (f"{entry.mode:o}", file.read().decode())
        return found


def test_the_engines_image_fetches_the_model() -> None:
    _, qwen = actions()
    found = words(qwen)
    assert found[:4] == ["docker", "run", "--rm", "--name"]
    assert found[found.index("--entrypoint") + 1] == "python3"
    assert "vllm/vllm-openai:v0.19.1" in found
    assert ["/stoker/fetch-model.py", f"/models/{QWEN}", f"Qwen/{QWEN}", "main"] == found[
        found.index("/stoker/fetch-model.py") :
    ][:4]
    volumes = [found[index + 1] for index, word in enumerate(found) if word == "--volume"]
    assert volumes == ["/data/projects/models:/models", "/opt/stoker/bin:/stoker:ro"]
    assert found.count("--exclude") == 5
    assert qwen.long


def test_a_secret_goes_into_a_private_file_and_nowhere_else() -> None:
    write, llama, qwen = actions(token=TOKEN)
    assert files_in(write) == {"hub.env": ("600", f"HF_TOKEN={TOKEN}\n")}
    assert write.description == "write the hub token to /etc/stoker/hub.env"
    for fetch in (llama, qwen):
        found = words(fetch)
        assert found[found.index("--env-file") + 1] == "/etc/stoker/hub.env"
    for action in (write, llama, qwen):
        assert TOKEN not in action.script
        assert TOKEN not in str(action)


def test_without_a_secret_none_is_used_although_one_is_left_there() -> None:
    assert all("--env-file" not in action.script for action in actions())


def test_a_secret_that_is_there_already_is_not_written_again() -> None:
    _, host = fleet_and_host("llm")
    file = File(models.HUB_ENVIRONMENT, f"HF_TOKEN={TOKEN}\n", "600")
    state = replace(bare(host), files={file.path: file_state(file)})
    assert len(models.actions(host, state, TOKEN)) == 2


def test_a_complete_model_needs_no_secret() -> None:
    fleet, host = fleet_and_host("llm")
    assert models.actions(host, converged(fleet, host), TOKEN) == []


def test_the_publishers_hub_is_asked_as_it_likes() -> None:
    found = environment(actions()[0])
    assert found["HF_ENDPOINT"] == "https://huggingface.co"
    assert "HF_HUB_DISABLE_XET" not in found
    assert not any("PROXY" in name for name in found)


def test_mirror_and_proxy() -> None:
    def change(data: Data) -> None:
        data["all"]["mirrors"]["hub"] = "https://hf-mirror.com"
        data["all"]["proxy"] = {"https": "http://proxy.example.org:3128", "no_proxy": ["localhost", "10.0.0.1"]}

    found = environment(actions(change)[0])
    assert found["HF_ENDPOINT"] == "https://hf-mirror.com"
    assert found["HF_HUB_DISABLE_XET"] == "1"
    assert found["HTTPS_PROXY"] == "http://proxy.example.org:3128"
    assert found["NO_PROXY"] == "localhost,10.0.0.1"


def test_a_model_that_two_stacks_share_is_fetched_once() -> None:
    assert [words(action)[4] for action in actions()] == [
        "stoker-fetch-Meta-Llama-3.1-8B-Instruct-GPTQ-INT4",
        f"stoker-fetch-{QWEN}",
    ]


def test_odd_patterns_survive_the_shell() -> None:
    def change(data: Data) -> None:
        data["all"]["models"]["qwen2.5-14b"]["exclude"] = ["a b/*", "$HOME/*", "'q'"]

    found = words(actions(change)[1])
    excluded = [found[index + 1] for index, word in enumerate(found) if word == "--exclude"]
    assert excluded == ["a b/*", "$HOME/*", "'q'"]


@pytest.mark.parametrize("host_name", ["llm", "embedding"])
def test_ollama_models_are_no_files_to_fetch(host_name: str) -> None:
    _, host = fleet_and_host(host_name)
    assert bool(models.wanted(host)) == (host_name == "llm")


def test_one_archive_holds_nothing_but_the_files() -> None:
    _, stdin = write_files([File("/etc/stoker/hub.env", "x", "600")], "/etc/stoker")
    assert files_in(Action("", stdin=stdin)) == {"hub.env": ("600", "x")}


def test_the_engines_own_image_is_used_where_one_is_named() -> None:
    def change(data: Data) -> None:
        for instance in instances(data, "llm"):
            instance["image"] = "registry.example.org/vllm:v0.19.1"

    host: Host = fleet_and_host("llm", change)[1]
    assert all(
        "registry.example.org/vllm:v0.19.1" in action.script for action in models.actions(host, bare(host), None)
    )

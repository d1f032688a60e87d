"""Open WebUI beside a stack's Ollama instances."""

from __future__ import annotations

import pytest
from support.fleet import Data, make_fleet
from support.states import bare

from stoker.operate.places import every
from stoker.render.compose import compose_file, services
from stoker.spec.fleet import Host
from stoker.spec.problems import SpecError
from stoker.steps.stack import uuids


def with_page(data: Data) -> None:
    data["embedding"]["stacks"][0]["web_ui"] = {"port": 3000}


def host() -> Host:
    return make_fleet(with_page).hosts[1]


def test_it_manages_every_ollama_of_the_stack_and_asks_for_accounts() -> None:
    found = host()
    (page,) = [one for one in services(found, found.stacks[0], uuids(bare(found))) if one.engine == "open-webui"]
    assert page.environment["OLLAMA_BASE_URLS"] == "http://ollama-bge-0:11434;http://ollama-bge-1:11434"
    assert page.environment["WEBUI_AUTH"] == "True"
    assert page.environment["ENABLE_PERSISTENT_CONFIG"] == "False"
    assert page.ports == ("3000:8080",)
    assert page.volumes == ("open-webui:/app/backend/data",)
    text = compose_file(found, found.stacks[0], uuids(bare(found)))
    assert '\nvolumes:\n  "open-webui": {}\n' in text


def test_it_belongs_to_the_stack() -> None:
    found = host()
    assert found.stacks[0].containers == ["ollama_bge_0", "ollama_bge_1", "ollama-webui", "bge_nginx"]
    assert any("open-webui" in image for image in found.images())
    assert not any("open-webui" in image for image in found.only(["ollama_bge_0"]).images())
    assert "ollama-webui" in [place.container for place in every(make_fleet(with_page))]


def refused(change: object, words: str) -> None:
    def both(data: Data) -> None:
        with_page(data)
        change(data)  # type: ignore[operator]

    with pytest.raises(SpecError, match=words):
        make_fleet(both)


def test_what_it_cannot_be() -> None:
    refused(lambda data: data["all"]["versions"].pop("open_webui"), "`versions` has no image of Open WebUI")
    refused(lambda data: data["all"].update(strict=True), "`strict` lets nobody but the gateways use the models")
    refused(lambda data: data["embedding"]["stacks"][0]["web_ui"].update(port=11434), "want this port")
    refused(lambda data: data["embedding"]["stacks"][0]["web_ui"].update(container="bge_nginx"), "have this name")

    def beside_vllm(data: Data) -> None:
        data["llm"]["stacks"][0]["web_ui"] = {"port": 3001}

    refused(beside_vllm, "this stack has no Ollama")

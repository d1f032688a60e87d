"""`stoker import`: replicas, ports and several files, of one host."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.draft.cards import parse
from stoker.draft.shipped import shipped
from stoker.importer.errors import CannotImport
from stoker.importer.fleet import Imported, Source, import_files

PINS = shipped()

CHAT = """
  {name}:
    image: vllm/vllm-openai:v0.19.1
    volumes: ["{models}:/models"]
    command: --model /models/Qwen3-4B --served-model-name qwen3-4b
    {more}
"""


def chat(name: str = "chat", more: str = 'ports: ["8000:8000"]', models: str = "/srv/models") -> str:
    return CHAT.format(name=name, more=more, models=models)


def import_(folder: Path, *services: str, cards: tuple[str, ...] = ()) -> Imported:
    """Each text is the services of one Compose file of the host."""
    sources = []
    for number, text in enumerate(services):
        file = folder / f"{number}.yaml"
        file.write_text("services:" + text, encoding="utf-8")
        words = cards[number] if cards else "2 x V100-32GB"
        sources.append(Source(file, "10.0.0.7", parse(words)))
    return import_files(sources, PINS)


def ports(imported: Imported) -> dict[str, int]:
    (host,) = imported.draft.fleet(PINS.versions).hosts
    return {instance.service_name: instance.port for _, instance in host.instances()}


def notes(imported: Imported) -> str:
    return "\n".join(imported.notes.lines())


@pytest.mark.parametrize(
    "more", ["scale: ${N:-2}", "deploy: {replicas: '2'}", "deploy: {replicas: null}\n    scale: 2"]
)
def test_a_number_of_replicas_may_be_a_text(tmp_path: Path, more: str) -> None:
    assert [*ports(import_(tmp_path, chat(more=more)))] == ["chat-1", "chat-2"]


@pytest.mark.parametrize("more", ["scale: 0", "deploy: {replicas: '0'}"])
def test_a_service_without_replicas_is_left_out(tmp_path: Path, more: str) -> None:
    imported = import_(tmp_path, chat() + chat("sleeping", f'ports: ["8001:8000"]\n    {more}'))
    assert [*ports(imported)] == ["chat"]
    assert ("left out", "sleeping") in [(note.kind, note.service) for note in imported.notes.found]


@pytest.mark.parametrize("given", ["many", "-1", "true", "1.5"])
def test_a_number_of_replicas_that_is_none_is_one_aloud(tmp_path: Path, given: str) -> None:
    imported = import_(tmp_path, chat(more=f"scale: {given}"))
    assert [*ports(imported)] == ["chat"]
    assert ("assumed", "1 instance") in [(note.kind, note.what) for note in imported.notes.found]


def test_a_port_of_what_stays_behind_is_nobody_elses(tmp_path: Path) -> None:
    """Of services that are no engine, and of engines that nothing can be said of; in any file of the host."""
    app = """
  app: {image: app, ports: ["8000:80"]}
  mute: {image: "vllm/vllm-openai:v0.19.1", ports: ["8001:8000"]}
  off: {image: app, ports: ["8002:80"], scale: 0}
"""
    assert ports(import_(tmp_path, chat(more=""), app)) == {"chat": 8002}


def test_a_gateway_without_a_port_gets_one_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "front.conf").write_text("server { location / { proxy_pass http://chat:8000; } }", encoding="utf-8")
    front = '  front: {image: nginx, volumes: ["./front.conf:/etc/nginx/conf.d/default.conf"]}\n'
    other = '  app: {image: app, ports: ["11435:80"]}\n'
    imported = import_(tmp_path, chat(more='ports: ["11434:8000"]') + front + other)
    gateway = imported.draft.fleet(PINS.versions).hosts[0].stacks[0].gateway
    assert gateway is not None
    assert gateway.port == 11436


def test_cards_of_one_host_that_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotImport) as refused:
        import_(tmp_path, chat(), chat("other"), cards=("2 x V100-32GB", "2 x P40"))
    for words in ("10.0.0.7", "2 x V100 32 GiB", "2 x P40 24 GiB", "1.yaml", "--inventory-address"):
        assert words in str(refused.value)


def test_stacks_of_one_directory_have_projects_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "serving"
    folder.mkdir()
    second = chat("b1", 'ports: ["8001:8000"]') + chat("b2", 'ports: ["8002:8000"]', "/srv/others")
    imported = import_(folder, chat("a"), second, chat("c", 'ports: ["8003:8000"]'))
    (host,) = imported.draft.fleet(PINS.versions).hosts
    assert [stack.project for stack in host.stacks] == ["serving", "serving_2", "serving-vllm", "serving_3"]
    found = {note.what: note.why for note in imported.notes.found if note.what.startswith("project ")}
    assert "0.yaml has the project serving" in found["project serving_2"]
    assert "one directory of models" in found["project serving-vllm"]
    assert "0.yaml has the project serving" in found["project serving_3"]


def test_containers_of_two_files_that_compose_names_alike(tmp_path: Path) -> None:
    folder = tmp_path / "serving"
    folder.mkdir()
    imported = import_(folder, chat(), chat(more='ports: ["8001:8000"]'))
    (host,) = imported.draft.fleet(PINS.versions).hosts
    assert [instance.name for _, instance in host.instances()] == ["serving-chat-1", "serving-chat-1_2"]
    assert "container serving-chat-1 -> serving-chat-1_2 (chat)" in notes(imported)

"""Model cards: those that ship, how they are read and overridden, and what is said of wrong ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support.description import PROJECT, Description
from support.fleet import LLM, make_fleet

from stoker.models.card import CardFile, Cards, ModelCard, OllamaCard, Source, load_cards, mismatch, write
from stoker.models.weights import of_card
from stoker.spec.problems import Problem, SpecError
from stoker.spec.settings import HubModel

SHIPPED = load_cards([PROJECT / "group_data"])
CONFIGS = PROJECT / "lab" / "models" / "configs"
#: Repositories of GGUF files, which have no config.json, and what they were made of.
MADE_OF = {"Qwen/Qwen3-4B-GGUF": "Qwen/Qwen3-4B"}
COMMIT, OTHER = "1" * 40, "2" * 40


def card(revision: str = "main", **more: Any) -> ModelCard:
    source = Source(revision="a test", config="a test", files="a test")
    return ModelCard(repository="an/example", revision=revision, config={}, files={}, source=source, **more)


def put(directory: Path, name: str, content: object) -> Path:
    """A file in the folder of cards; returns the group_data directory."""
    file = directory / "cards" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def problems(*directories: Path) -> list[Problem]:
    with pytest.raises(SpecError) as raised:
        load_cards(directories)
    return raised.value.problems


def test_every_default_model_has_a_card() -> None:
    models = make_fleet().host(LLM).settings.models
    assert models
    assert [name for name, model in models.items() if SHIPPED.of(model) is None] == []
    assert {"Qwen/Qwen3-4B", "BAAI/bge-m3"} < set(SHIPPED.hub)


@pytest.mark.parametrize("repository", SHIPPED.hub)
def test_shipped_configurations_are_the_published_ones(repository: str) -> None:
    found = SHIPPED.hub[repository]
    file = CONFIGS / MADE_OF.get(repository, repository) / "config.json"
    assert found.config == json.loads(file.read_text())
    if (stated := found.files.get("config.json", CardFile())).sha256:
        content = file.read_bytes()[: stated.size]  # some have a line feed more at their end
        assert hashlib.sha256(content).hexdigest() == stated.sha256


@pytest.mark.parametrize(
    ("repository", "total", "word"),
    [
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", 5.733e9, "rounded"),
        ("Qwen/Qwen2.5-14B-Instruct-GPTQ-Int8", 16.65e9, "arithmetic"),
        ("Qwen/Qwen3-4B", 8.045e9, "safetensors"),
        ("BAAI/bge-m3", 1.136e9, "loaded as 2"),
        ("BAAI/bge-large-zh-v1.5", 0.651e9, "loaded as 2"),
        ("BAAI/bge-small-zh-v1.5", 0.0479e9, "rounded"),
    ],
)
def test_shipped_weights_and_where_they_come_from(repository: str, total: float, word: str) -> None:
    found = of_card(SHIPPED.hub[repository])
    assert found.bytes == pytest.approx(total, rel=1e-3)
    assert word in found.source


@pytest.mark.parametrize(("library", "size"), [("bge-m3:567m", 1.2e9), ("nomic-embed-text:v1.5", 0.274e9)])
def test_ollamas_models_have_a_size_and_an_estimate(library: str, size: float) -> None:
    found = SHIPPED.ollama[library]
    assert found.size == pytest.approx(size, rel=0.05)
    assert found.size < found.estimate.low < found.estimate.high


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    full = card(COMMIT, tensors={"F16": 12}, simulated_weights=34).model_copy(
        update={
            "config": {"text_config": {"layers": [1, 2]}},
            "files": {"a.bin": CardFile(size=5, rounded=True), "b": CardFile()},
        }
    )
    assert load_cards([put(tmp_path, "an--example.json", write(full))]) == Cards(hub={"an/example": full})


def test_an_overlay_overrides_and_leaves_the_rest(tmp_path: Path) -> None:
    base, over = tmp_path / "base", tmp_path / "over"
    put(base, "an--example.json", write(card(COMMIT)))
    put(base, "an--other.json", write(card().model_copy(update={"repository": "an/other"})))
    put(over, "an--example.json", write(card(OTHER)))
    found = load_cards([base, over]).hub
    assert (found["an/example"].revision, found["an/other"].revision) == (OTHER, "main")


def test_directories_without_cards_are_nothing_special(tmp_path: Path) -> None:
    assert load_cards([tmp_path, tmp_path / "missing"]) == Cards()


def test_every_problem_is_told_with_file_and_field(tmp_path: Path) -> None:
    good = json.loads(write(card()))
    put(
        tmp_path,
        "an--example.json",
        {**good, "revision": "a b", "layers": 3, "files": {"x": {"size": -1, "sha256": "abc"}}},
    )
    put(tmp_path, "an--other.json", {key: value for key, value in good.items() if key != "source"})
    put(tmp_path, "not.json", "{")
    found = problems(tmp_path)
    assert {(Path(problem.where).name, problem.field) for problem in found} == {
        ("an--example.json", "revision"),
        ("an--example.json", "layers"),
        ("an--example.json", "files.x.size"),
        ("an--example.json", "files.x.sha256"),
        ("an--other.json", "source"),
        ("not.json", "JSON"),
    }
    assert all(problem.reason and problem.remedy for problem in found)
    assert any("64 digits" in problem.remedy for problem in found)


def test_a_card_under_another_models_name_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(put(tmp_path, "another--name.json", write(card())))
    assert "an--example.json" in problem.remedy


def test_an_estimate_upside_down_is_refused(tmp_path: Path) -> None:
    entry = json.loads((PROJECT / "group_data/cards/ollama--bge-m3--567m.json").read_text())
    (problem,) = problems(put(tmp_path, "ollama--bge-m3--567m.json", {**entry, "estimate": {"low": 2, "high": 1}}))
    assert "above" in problem.reason


@pytest.mark.parametrize(
    ("described", "wanted", "word"),
    [
        ("main", "main", None),
        (COMMIT, COMMIT, None),
        (COMMIT, OTHER, f"asks for commit {OTHER[:12]}"),
        (COMMIT, "main", "may have moved"),
        ("main", COMMIT, "revision 'main'"),
    ],
)
def test_a_card_of_another_revision_is_told(described: str, wanted: str, word: str | None) -> None:
    found = mismatch(card(described), HubModel(repository="an/example", revision=wanted, directory="example"))
    assert (found is None) if word is None else (found is not None and word in found)


def test_pyinfra_and_the_inventory_leave_cards_alone(tmp_path: Path) -> None:
    """Not even a Python file among them is taken for group data."""
    description = Description.copy(tmp_path)
    assert (tmp_path / "group_data/cards/Qwen--Qwen3-4B.json").is_file()
    description.append("group_data/cards/nobody.py", "raise RuntimeError\n")
    assert {host.name for host in description.load().hosts} == {host.name for host in make_fleet().hosts}


def test_a_card_of_ollama_is_found_by_the_librarys_name() -> None:
    models = make_fleet().host(LLM).settings.models
    assert isinstance(SHIPPED.of(models["bge-m3"]), OllamaCard)

"""What this checkout's own ``group_data/`` says: pinned versions, models and their cards, taken over into a fleet that is written."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from stoker.models.card import FOLDER, Cards, ModelCard, OllamaCard, file_name, load_cards
from stoker.spec import explain
from stoker.spec.problems import Problem, SpecError
from stoker.spec.settings import AnyModel, HubModel, Settings, Versions

GROUP_DATA = Path(__file__).resolve().parents[2] / "group_data"


@dataclass(frozen=True)
class Shipped:
    """Pins, models, and the text in which they stand with their reasons."""

    versions: Versions
    models: Mapping[str, AnyModel]
    cards: Cards
    #: all.py as it is.
    text: str

    def all_py(self, models: str) -> str:
        """all.py with other models: ``models`` is the text of that assignment."""
        node = _assignments(self.text)["models"]
        lines = self.text.splitlines()
        return "\n".join([*lines[: node.lineno - 1], *models.splitlines(), *lines[(node.end_lineno or 0) :]]) + "\n"

    def hub(self, directory: str) -> HubModel | None:
        """The model whose files lie in a directory of this name, by the shipped models and cards."""
        for model in self.models.values():
            if isinstance(model, HubModel) and model.directory == directory:
                return model
        for repository in self.cards.hub:
            if repository.partition("/")[2] == directory:
                return HubModel(repository=repository, directory=directory)
        return None

    def card_text(self, card: ModelCard | OllamaCard) -> str:
        """The card's file, byte by byte."""
        return (GROUP_DATA / FOLDER / file_name(card)).read_text(encoding="utf-8")


def shipped(directory: Path = GROUP_DATA) -> Shipped:
    """Raises SpecError, also for cards that cannot be read."""
    file = directory / "all.py"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "take the file of this checkout's release, or correct it"
        raise SpecError([Problem(str(file), "file", "", f"it cannot be read: {error}", remedy)]) from None
    found = _values(file, text)
    try:
        settings = Settings.model_validate(found)
    except ValidationError as error:
        raise SpecError(explain.explain(error, lambda _: str(file), found)) from None
    return Shipped(settings.versions, settings.models, load_cards([directory]), text)


def _values(file: Path, text: str) -> dict[str, object]:
    """``versions`` and ``models`` without running the file. Raises SpecError for what that does not do."""
    try:
        nodes = _assignments(text)
    except (SyntaxError, ValueError) as error:
        line = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
        raise SpecError([Problem(str(file), "file", "", f"it is not Python: {line}", "correct it there")]) from None
    found: dict[str, object] = {}
    problems = []
    for name in ("versions", "models"):
        if name not in nodes:
            reason = "it is not given; pins and models of a new fleet come from here"
            problems.append(Problem(str(file), name, "", reason, f"write {name} = {{...}} on the file's first level"))
            continue
        try:
            found[name] = ast.literal_eval(nodes[name].value)
        except (ValueError, TypeError, SyntaxError):
            reason = "a part of it is computed, and the file is read without being run"
            where = f"{file}, line {nodes[name].lineno}"
            problems.append(Problem(where, name, "", reason, "write its values out"))
    if problems:
        raise SpecError(problems)
    return found


def _assignments(text: str) -> dict[str, ast.Assign]:
    return {
        node.targets[0].id: node
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("versions", "models")
    }

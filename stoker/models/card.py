"""Model cards: a model's configuration, files and checksums, as JSON in the folder ``cards`` of group data.

So that a plan knows a model before anything of it was downloaded, and without asking the hub.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from stoker.spec import explain
from stoker.spec.base import Spec, form
from stoker.spec.problems import Problem, SpecError
from stoker.spec.settings import AnyModel, HubModel, OllamaModel

#: Folder with cards in a group_data directory. pyinfra reads only the files ``*.py`` of group_data itself.
FOLDER = "cards"

REPOSITORY = r"^[\w.-]+/[\w.-]+$"
REVISION = r"^[\w./-]+$"

Repository = Annotated[str, form(REPOSITORY, "OWNER/NAME as the hub shows it")]
Revision = Annotated[str, form(REVISION, "a branch, a tag or a commit")]
Sha256 = Annotated[str, form(r"^[0-9a-f]{64}$", "a SHA-256 checksum: 64 digits 0-9 a-f")]
Library = Annotated[
    str, form(r"^[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9][A-Za-z0-9._-]*$", "NAME:TAG, for instance bge-m3:567m")
]
Bytes = Annotated[int, Field(ge=0)]
Origin = Annotated[str, Field(min_length=1)]


class CardFile(Spec):
    """One file of a repository. None: not known."""

    size: Bytes | None = None  #: bytes
    #: The size is only known as the hub's pages print it, to three digits.
    rounded: bool = False
    sha256: Sha256 | None = None


class Source(Spec):
    """Where each part of a card comes from, in words."""

    revision: Origin
    config: Origin
    files: Origin


class ModelCard(Spec):
    """A model of the hub, at one revision."""

    repository: Repository
    #: The commit where it is known, else the branch.
    revision: Revision
    #: config.json as it is in the repository.
    config: dict[str, object]
    #: Path in the repository -> what is known of the file.
    files: dict[str, CardFile]
    #: Data type -> bytes of all tensors of that type, as the headers of the safetensors files state them. None: not looked at.
    tensors: dict[str, Bytes] | None = None
    #: Only on cards of the lab's models: the weights that its stand-ins simulate, in bytes.
    simulated_weights: Bytes | None = None
    source: Source

    @property
    def sizes(self) -> dict[str, int | None]:
        return {path: file.size for path, file in self.files.items()}

    @property
    def rounded(self) -> set[str]:
        return {path for path, file in self.files.items() if file.rounded}


class Range(Spec):
    """From the lower to the higher value that is thought possible."""

    low: Bytes
    high: Bytes

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.low > self.high:
            raise ValueError("`low` is above `high`; exchange them")
        return self


class OllamaSource(Spec):
    """Where each part of an Ollama card comes from, in words."""

    size: Origin
    estimate: Origin


class OllamaCard(Spec):
    """A model of the Ollama library: Ollama decides itself what it loads, so there is a size and an estimate, no arithmetic."""

    library: Library
    #: The blob with the weights, in bytes, and its digest. None: not known.
    size: Bytes
    sha256: Sha256 | None = None
    #: What the loaded model takes of a card's memory with its context, in bytes.
    estimate: Range
    source: OllamaSource


@dataclass(frozen=True)
class Cards:
    """All cards of a description."""

    hub: dict[str, ModelCard] = field(default_factory=dict)  #: by repository
    ollama: dict[str, OllamaCard] = field(default_factory=dict)  #: by library name

    def of(self, model: AnyModel) -> ModelCard | OllamaCard | None:
        """The model's card, whatever its revision: see :func:`mismatch`. Of a person's own directory nothing is known before a look at it."""
        if isinstance(model, HubModel):
            return self.hub.get(model.repository)
        return self.ollama.get(model.library) if isinstance(model, OllamaModel) else None


def mismatch(card: ModelCard, model: HubModel) -> str | None:
    """Why the card may describe something else than what is downloaded, as a sentence for a person; None if it does not."""
    if card.revision == model.revision:
        return None
    if not _is_commit(model.revision):
        return f"the card describes {_short(card.revision)}; {model.revision!r} may have moved on since"
    return f"the card describes {_short(card.revision)}, the description asks for {_short(model.revision)}"


def file_name(card: ModelCard | OllamaCard) -> str:
    """The name under which a card is looked for: ``OWNER--NAME.json``, ``ollama--NAME--TAG.json``."""
    if isinstance(card, ModelCard):
        return card.repository.replace("/", "--") + ".json"
    return "ollama--" + card.library.replace("/", "--").replace(":", "--") + ".json"


def write(card: ModelCard) -> str:
    """A card as the text of its file."""
    return card.model_dump_json(indent=2, exclude_defaults=True) + "\n"


def load_cards(directories: Iterable[str | Path]) -> Cards:
    """The cards in the folder ``cards`` of each group_data directory; later directories override. Raises SpecError."""
    cards, problems = Cards(), []
    for directory in directories:
        for file in sorted((Path(directory) / FOLDER).glob("*.json")):
            card = read(file)
            if isinstance(card, list):
                problems += card
            elif isinstance(card, ModelCard):
                cards.hub[card.repository] = card
            else:
                cards.ollama[card.library] = card
    if problems:
        raise SpecError(problems)
    return cards


def read(file: Path) -> ModelCard | OllamaCard | list[Problem]:
    """The card in a file, or everything that is wrong with it."""
    kind: type[ModelCard | OllamaCard] = OllamaCard if file.name.startswith("ollama--") else ModelCard
    try:
        card = kind.model_validate_json(file.read_bytes())
    except OSError as error:
        return [Problem(str(file), "file", "", str(error.strerror), "make it readable, or remove it")]
    except ValidationError as error:
        return [_problem(file, details) for details in error.errors()]
    if file.name != file_name(card):
        name = card.repository if isinstance(card, ModelCard) else card.library
        reason = f"the card in it is of {name}, whose file is looked for under another name"
        return [Problem(str(file), "file name", file.name, reason, f"name it {file_name(card)}")]
    return card


def _problem(file: Path, details: ErrorDetails) -> Problem:
    path = ".".join(str(part) for part in details["loc"] if part != "[key]")
    if details["type"] == "json_invalid":
        reason, remedy = details["msg"], "write the card anew: stoker models describe REPOSITORY --output FILE"
        return Problem(str(file), "JSON", "", reason, remedy)
    if details["type"] == "extra_forbidden":
        return Problem(str(file), path, "", "a card has no field of this name", "remove it, or correct its name")
    reason, remedy = explain.reason(details)
    value = "" if details["type"] == "missing" else explain.short(details["input"])
    return Problem(str(file), path, value, reason, remedy)


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(digit in "0123456789abcdef" for digit in revision)


def _short(revision: str) -> str:
    """A revision as people write it: commits by their first digits."""
    return f"commit {revision[:12]}" if _is_commit(revision) else f"revision {revision!r}"

"""``stoker models``: write a model's card, and show what is known of the fleet's models."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from stoker.inventory import GROUP_DATA_VARIABLE, data_folders, group_data_directories, load_fleet
from stoker.models.card import REPOSITORY, REVISION, Cards, ModelCard, load_cards, mismatch, write
from stoker.models.weights import UnknownSize, of_card
from stoker.spec.fleet import Fleet
from stoker.spec.problems import SpecError
from stoker.spec.settings import AnyModel, HubModel, LocalModel, Mirrors, OllamaModel

FAILED, BAD_INPUT = 1, 3
DEFAULT_INVENTORY = Path("inventory.py")

app = typer.Typer(no_args_is_help=True, help="What is known of the models before they are downloaded.")

GroupData = Annotated[
    list[str] | None,
    typer.Option(
        "--group-data",
        metavar="DIR",
        help=f"More group data, overriding group_data/; default: ${GROUP_DATA_VARIABLE}. May be repeated.",
    ),
]


@app.command(epilog="Example: stoker models describe Qwen/Qwen3-4B --output group_data/cards/Qwen--Qwen3-4B.json")
def describe(
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="OWNER/NAME as the hub shows it.")],
    revision: Annotated[
        str | None, typer.Option(metavar="R", help="Branch, tag or commit; default: the description's, else main.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--from", metavar="DIRECTORY", help="Read the model's files here, not the hub.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="The hub; default: mirrors['hub'], else $HF_ENDPOINT.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the card here, not to standard output.")
    ] = None,
    inventory: Annotated[Path, typer.Option("--inventory", "-i", help="The inventory file.")] = DEFAULT_INVENTORY,
    group_data: GroupData = None,
) -> None:
    """Write a model's card: its configuration, files and checksums, from the hub or from a directory."""
    from stoker.models.describe import CannotDescribe, from_directory, from_hub

    if not re.match(REPOSITORY, repository):
        _end(f"{repository!r} is no repository: write OWNER/NAME, for instance Qwen/Qwen3-4B", BAD_INPUT)
    if revision is not None and not re.match(REVISION, revision):
        _end(f"--revision {revision!r} is no revision: write a branch, a tag or a commit", BAD_INPUT)
    if directory and not directory.is_dir():
        _end(f"--from {directory}: there is no such directory", BAD_INPUT)
    fleet = _fleet(inventory, group_data) if inventory.is_file() or inventory != DEFAULT_INVENTORY else Fleet(())
    hub = (endpoint or _hub(fleet)).rstrip("/")
    if not re.match(r"https?://[^/\s]+", hub):
        _end(f"the hub {hub!r} is no address: write one that begins with http:// or https://", BAD_INPUT)
    try:
        if directory:
            card = from_directory(repository, directory, revision)
        else:
            card = from_hub(repository, revision or _revision(fleet, repository), hub, _token(fleet))
    except CannotDescribe as error:
        _end(str(error), FAILED)
    if output is None:
        print(write(card), end="")
    else:
        _write(output, write(card))
    print(f"{card.repository} at {card.revision}: weights {_weights(card)}", file=sys.stderr)


@app.command("list", epilog="Example: stoker models list -i fleets/three-racks/inventory.py")
def list_(
    inventory: Annotated[Path, typer.Option("--inventory", "-i", help="The inventory file.")] = DEFAULT_INVENTORY,
    group_data: GroupData = None,
) -> None:
    """Show the fleet's models, their cards and the size of their weights; contacts no host."""
    fleet = _fleet(inventory, group_data)
    try:
        cards = load_cards(data_folders(inventory, group_data_directories(group_data or ())))
    except SpecError as error:
        _end(str(error), BAD_INPUT)
    for name, model in _models(fleet).items():
        print(f"{name}: {_about(model, cards)}")


def _about(model: AnyModel, cards: Cards) -> str:
    """What is known of a model: whence, card, weights and their source."""
    if isinstance(model, OllamaModel):
        found = cards.ollama.get(model.library)
        if found is None:
            return f"{model.library}\n    card:    none\n    weights: not known"
        low, high = found.estimate.low / 2**30, found.estimate.high / 2**30
        loaded = f"loaded {low:.1f} to {high:.1f} GiB ({found.source.estimate})"
        return f"{model.library}\n    card:    yes\n    weights: {_gb(found.size)}; {loaded}"
    if isinstance(model, LocalModel):
        return f"{model.directory}, a directory on the host\n    card:    none; the host's own files are looked at\n    weights: not known"
    card = cards.hub.get(model.repository)
    about = f"{model.repository} at {model.revision}"
    if card is None:
        return (
            f"{about}\n    card:    none; write one: stoker models describe {model.repository}\n    weights: not known"
        )
    return f"{about}\n    card:    {mismatch(card, model) or 'yes'}\n    weights: {_weights(card)}"


def _weights(card: ModelCard) -> str:
    try:
        found = of_card(card)
    except UnknownSize as error:
        return f"not known: {error}"
    return f"{_gb(found.bytes)} ({found.source})"


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB = {count / 2**30:.2f} GiB"


def _models(fleet: Fleet) -> dict[str, AnyModel]:
    return {name: model for host in fleet.hosts for name, model in host.settings.models.items()}


def _revision(fleet: Fleet, repository: str) -> str:
    """The revision that the description asks for."""
    wanted = (model for model in _models(fleet).values() if isinstance(model, HubModel))
    return next(
        (model.revision for model in wanted if model.repository == repository),
        HubModel.model_fields["revision"].default,
    )


def _hub(fleet: Fleet) -> str:
    """The hub that the description names, where it is not the publishers' own; else the environment's."""
    official = Mirrors().hub
    mirrors = [host.settings.mirrors.hub for host in fleet.hosts if host.settings.mirrors.hub != official]
    return mirrors[0] if mirrors else os.environ.get("HF_ENDPOINT") or official


def _token(fleet: Fleet) -> str | None:
    names = [host.settings.keys.hub for host in fleet.hosts if host.settings.keys.hub]
    return next((os.environ[name] for name in (*names, "HF_TOKEN") if os.environ.get(name)), None)


def _fleet(inventory: Path, group_data: list[str] | None) -> Fleet:
    try:
        return load_fleet(inventory, group_data_directories(group_data or ()))
    except SpecError as error:
        _end(str(error), BAD_INPUT)


def _write(output: Path, text: str) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        _end(f"{output} could not be written: {error.strerror}", FAILED)


def _end(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(status)

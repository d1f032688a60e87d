"""Model files that a person put on a host: is all of it there? By what a look at the host says, without reading weights. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from stoker.facts.state import HostState
from stoker.models.card import CardFile, ModelCard, Source
from stoker.models.gguf import names_of
from stoker.models.weights import LAB_WEIGHTS, loaded_files, simulated_bytes
from stoker.spec.fleet import Host
from stoker.spec.instance import Instance
from stoker.spec.settings import FilesModel, LocalModel

#: Each of these sets of files makes a tokenizer.
TOKENIZERS = (
    {"tokenizer.json"},
    {"tokenizer.model"},
    {"vocab.json", "merges.txt"},
    {"vocab.txt"},
    {"sentencepiece.bpe.model"},
    {"tekken.json"},
)

#: A pointer of Git LFS in the place of a weight file has some 130 bytes; the smallest real one has more than this.
_POINTER_BYTES = 1024

_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<total>\d{5})(?P<suffix>\.\w+)")


def directory_of(host: Host, instance: Instance, model: FilesModel) -> str:
    """On the host."""
    stack = next(stack for stack, one in host.instances() if one.name == instance.name)
    return f"{stack.model_directory}/{model.directory}"


def described(host: Host) -> dict[str, LocalModel]:
    """Directory on the host -> the model that has to be there."""
    found = {}
    for _, instance in host.instances():
        model = host.settings.models.get(instance.model)
        if isinstance(model, LocalModel):
            found[directory_of(host, instance, model)] = model
    return found


def configuration_files(host: Host) -> list[str]:
    """What a look at the host has to read."""
    return [
        f"{directory}/{name}"
        for directory, model in described(host).items()
        if model.file is None
        for name in ("config.json", LAB_WEIGHTS)
    ]


def problems(directory: str, model: LocalModel, state: HostState) -> Iterator[str]:
    """What is wrong with a directory, a sentence each."""
    files = state.model_files.get(directory, {})
    if not files:
        yield "it is not there, or it is empty"
        return
    weights = names_of(model.file) if model.file else loaded_files(files)
    if model.file is None:
        yield from _configuration(state.contents.get(f"{directory}/config.json", ""), "config.json" in files)
        if not any(names <= files.keys() for names in TOKENIZERS):
            yield "it has no tokenizer: tokenizer.json or tokenizer.model is missing"
    if not weights:
        yield "it has no weights: neither *.safetensors nor pytorch_model.bin is there"
    for name in [*weights, *_lacking_shards(weights)]:
        if name not in files:
            yield f"{name} is missing"
        elif files[name] < _POINTER_BYTES:
            yield f"{name} has {files[name]} bytes: it is empty, or a pointer of Git LFS"


def _configuration(text: str, there: bool) -> Iterator[str]:
    if not there:
        yield "config.json is missing"
        return
    try:
        config = json.loads(text)
    except ValueError:
        yield "config.json cannot be read as JSON"
        return
    if not isinstance(config, Mapping):
        yield "config.json holds no object"
        return
    # of the text part in models that see or hear as well: text_config, llm_config, thinker_config.text_config
    parts = [part for part in config.values() if isinstance(part, Mapping)]
    places = [config, *parts, *(one for part in parts for one in part.values() if isinstance(one, Mapping))]
    if not isinstance(config.get("model_type"), str):
        yield "config.json names no model_type"
    sizes = [place.get("vocab_size") for place in places]
    if not any(isinstance(size, int) and size > 0 for size in sizes):
        yield "config.json has no vocab_size"


def _lacking_shards(weights: list[str]) -> Iterator[str]:
    """Parts of a set of numbered files that are not there."""
    for stem, total, suffix in {
        (m["stem"], m["total"], m["suffix"]) for name in weights if (m := _SHARD.fullmatch(name))
    }:
        for part in range(1, int(total) + 1):
            name = f"{stem}-{part:05d}-of-{total}{suffix}"
            if name not in weights:
                yield name


def card(directory: str, state: HostState) -> ModelCard | None:
    """What a look at the directory tells of its model; None where it tells too little."""
    try:
        config = json.loads(state.contents.get(f"{directory}/config.json", ""))
    except ValueError:
        return None
    files = state.model_files.get(directory, {})
    if not isinstance(config, dict) or not files:
        return None
    seen = "the host's own directory"
    name = re.sub(r"[^\w.-]", "-", directory.rpartition("/")[2])
    return ModelCard(
        repository=f"local/{name}",
        revision="local",
        config=config,
        files={path: CardFile(size=size) for path, size in files.items()},
        simulated_weights=simulated_bytes(files, lambda path: state.contents.get(f"{directory}/{path}", "")),
        source=Source(revision=seen, config=seen, files=seen),
    )

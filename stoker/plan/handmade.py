"""An earlier stack that somebody made by hand: recognised, and compared with what is described. Pure.

Compose made its containers, Stoker did not. They have the described names or hold the described ports, mostly under the same project's
name, for people keep the names of the document that they follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stoker.engine.registry import engine_of
from stoker.facts.identity import chosen
from stoker.facts.state import Container, HostState
from stoker.spec.fleet import Host
from stoker.spec.instance import Instance
from stoker.spec.settings import FilesModel
from stoker.spec.stack import Stack
from stoker.spec.vllm import to_argv

#: Arguments that stand in rows of their own, or say what Compose says too.
_ELSEWHERE = frozenset({"model", "served-model-name", "host", "port"})
_SECRET = frozenset({"api-key", "hf-token"})

ABSENT = "-"


@dataclass(frozen=True)
class Described:
    """A container as group_data describes it. ``instance`` is None for a gateway."""

    name: str
    port: int
    image: str
    stack: Stack
    instance: Instance | None = None

    def cards(self, state: HostState) -> frozenset[int]:
        """Its cards on this host, as nvidia-smi counts them."""
        return frozenset(gpu.index for gpu in chosen(state, self.instance.gpus)) if self.instance else frozenset()


@dataclass(frozen=True)
class Row:
    """One property of one container, old against new."""

    container: str
    what: str
    old: str
    new: str

    @property
    def differs(self) -> bool:
        return self.old != self.new


@dataclass(frozen=True)
class Difference:
    """The same difference of one or more containers."""

    what: str
    old: str
    new: str
    containers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what}: {self.old} -> {self.new} ({', '.join(self.containers)})"


def described(host: Host) -> list[Described]:
    """In the order of replacement: the engines as they are described, so those of one GPU one after the other, gateways last."""
    engines = [
        Described(instance.name, instance.port, host.image_of(instance), stack, instance)
        for stack, instance in host.instances()
    ]
    gateways = [
        Described(stack.gateway.container, stack.gateway.port, host.gateway_image, stack)
        for stack in host.stacks
        if stack.gateway
    ]
    return engines + gateways


def blockers(host: Host, state: HostState) -> dict[str, tuple[Container, ...]]:
    """Described container -> containers of an earlier stack that must go for it; those without any are left out.

    An old container goes for the first that needs its name, its port, or (when nothing described has its name) its card.
    """
    wanted = described(host)
    names = {one.name for one in wanted}
    by_hand = [one for one in state.containers.values() if one.project and not one.configuration]
    projects = {old.project for old in by_hand if any(_in_place_of(old, new) for new in wanted)}
    left = [old for old in by_hand if old.project in projects]
    found: dict[str, tuple[Container, ...]] = {}
    for new in wanted:
        mine = [
            old
            for old in left
            if old.name == new.name
            or (old.running and new.port in old.ports)
            or (old.running and old.name not in names and indices(old, state) & new.cards(state))
        ]
        if mine:
            found[new.name] = tuple(mine)
            left = [old for old in left if old not in mine]
    return found


def _in_place_of(old: Container, new: Described) -> bool:
    """Its name says so; or it holds the port with the same kind of engine. Another program on the port is no earlier stack."""
    return old.name == new.name or (
        old.running and new.port in old.ports and repository(old.image) == repository(new.image)
    )


def repository(image: str) -> str:
    """``vllm/vllm-openai:latest`` -> ``vllm/vllm-openai``; the registry's host and the digest go too."""
    name = image.partition("@")[0]
    head, slash, rest = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        name = rest
    return name.partition(":")[0].removeprefix("library/")


def indices(container: Container, state: HostState) -> frozenset[int]:
    """The host's cards that a container was given, whichever way they were named."""
    found = set()
    for word in container.gpus:
        name = word.removeprefix("nvidia.com/gpu=")
        found |= {gpu.index for gpu in state.gpus if name in ("all", str(gpu.index), gpu.uuid)}
    return frozenset(found)


def comparison(host: Host, state: HostState) -> list[Row]:
    """Every property of every container of an earlier stack, old against new."""
    found = blockers(host, state)
    rows: list[Row] = []
    for new in described(host):
        for number, old in enumerate(found.get(new.name, ())):
            rows += [Row(old.name, *row) for row in _rows(host, state, new, old)] if number == 0 else [_gone(old, new)]
    return rows


def differences(rows: Iterable[Row]) -> list[Difference]:
    """Rows that differ, the same difference of several containers as one; what is told of the same property stands together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.differs:
            found.setdefault((row.what, row.old, row.new), []).append(row.container)
    order = [*dict.fromkeys(what for what, _, _ in found)]
    return [
        Difference(*key, tuple(containers))
        for key, containers in sorted(found.items(), key=lambda entry: order.index(entry[0][0]))
    ]


def _gone(old: Container, new: Described) -> Row:
    return Row(old.name, "container", old.image, f"none, it makes way for {new.name}")


def _rows(host: Host, state: HostState, new: Described, old: Container) -> Iterator[tuple[str, str, str]]:
    yield "image", old.image, new.image
    yield "name", old.name, new.name
    yield "port", _numbers(old.ports), str(new.port)
    if new.instance:
        yield from _engine(host, state, new, new.instance, old)
    else:
        assert new.stack.gateway is not None
        configuration = f"{host.settings.stack_root}/{new.stack.project}/gateway/{new.stack.gateway.config_file}"
        yield "configuration", ", ".join(source for source, _ in old.mounts) or ABSENT, configuration
    yield "restart", old.restart if old.restart not in ("", "no") else "none", "always"


def _engine(
    host: Host, state: HostState, new: Described, instance: Instance, old: Container
) -> Iterator[tuple[str, str, str]]:
    yield "GPU", _numbers(indices(old, state)), _numbers(new.cards(state))
    inside = engine_of(instance.engine).model_mount
    files = next((source for source, destination in old.mounts if destination == inside), ABSENT)
    yield "model directory", files, new.stack.model_directory
    if instance.engine != "vllm":
        return
    model = host.model_of(instance)
    assert isinstance(model, FilesModel)
    have = arguments(old.command)
    want = arguments(to_argv(instance.arguments))
    yield "model", have.get("model", ABSENT).rpartition("/")[2], model.directory
    yield "served name", have.get("served-model-name", ABSENT), instance.model
    for name in [*want, *(name for name in have if name not in want)]:
        if name in _ELSEWHERE:
            continue
        before, after = have.get(name, ABSENT), want.get(name, ABSENT)
        if name in _SECRET:
            before = "(not shown)"
        yield f"--{name}", before, before if _same(before, after) else after


def arguments(command: Sequence[str]) -> Mapping[str, str]:
    """vLLM's command line by name, without dashes; a switch has the value ``on``, the first word without a name is the model."""
    found: dict[str, str] = {}
    name = ""
    for word in command:
        if word.startswith("--"):
            given, equals, value = word[2:].partition("=")
            given = given.replace("_", "-")
            found[given] = value if equals else "on"
            name = "" if equals else given
        elif name:
            found[name] = word
            name = ""
        elif word not in ("vllm", "serve"):
            found.setdefault("model", word)
    return found


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _numbers(found: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(found))) or ABSENT

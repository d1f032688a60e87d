"""What Stoker has to know of an engine: everything that differs between engines is a field here, filled in by its module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stoker.ready.failure import Failure
from stoker.ready.phase import Phase, Progress
from stoker.spec.gateway import Kind
from stoker.spec.profile import Profile
from stoker.spec.vllm import Argument, Finding

if TYPE_CHECKING:
    from stoker.models.card import ModelCard
    from stoker.plan.compatibility.row import Row
    from stoker.plan.memory.card import FixedUse
    from stoker.spec.fleet import Host
    from stoker.spec.instance import Instance
    from stoker.spec.stack import Stack

Arguments = Mapping[str, Argument]

#: Where a model comes from: files of a hub or of a local directory, one GGUF file of those, or Ollama's library.
Source = Literal["files", "gguf", "library"]


@dataclass(frozen=True)
class Place:
    """One instance, as its container is made for it."""

    host: Host
    stack: Stack
    instance: Instance
    image: str
    #: UUIDs of its cards, in the description's order; none with a profile that uses no card.
    uuids: Sequence[str]


@dataclass(frozen=True)
class Container:
    """What an engine adds to its instance's Compose service."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    #: ``on the host:in the container[:ro]``
    volumes: tuple[str, ...] = ()
    #: The instance's own environment is laid over it.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: As Compose takes it; its first word is CMD.
    healthcheck: tuple[str, ...] = ()
    #: It waits until the other engines of its cards have started (gpu-turn.py), and they for it.
    takes_turns: bool = False
    #: Size of /dev/shm; empty: the profile's.
    shared_memory: str = ""


@dataclass(frozen=True)
class Paths:
    """What an engine offers for a kind of model and a gateway may pass on; everything else is unknown to the gateway."""

    posts: tuple[str, ...]
    #: Under a pool's prefix only: without one the gateway has a /v1/models of its own.
    gets: tuple[str, ...] = ("/v1/models",)


@dataclass(frozen=True)
class Metrics:
    """Names of families in the engine's /metrics, without ``prefix``. An empty one: the engine does not count that."""

    prefix: str
    running: str
    waiting: str
    prompt_tokens: str
    generated_tokens: str
    #: Share of the KV cache in use, 0 to 1; the names of different releases.
    kv_cache: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """The publisher's image. Sizes in bytes, with their source beside them in the module."""

    #: Repositories, the usual one first, without the registry's host: what a mirror keeps.
    repositories: tuple[str, ...]
    unpacked: int
    #: As it is downloaded.
    packed: int
    #: How a person writes it in `versions`, with the registry and a TAG.
    example: str
    #: Newest release that the facts were gathered from, and the one that is pinned.
    newest: str
    pinned: str
    #: Finds the release in a tag, as its first group. The default: a release that begins with one digit and a point, because a tag
    #: such as 25.10 is a date.
    tag: str = r"v?(\d\.\d+(?:\.\d+)?)(?:\.post\d+)?(?=$|[-+_])"
    #: Major version of the CUDA in a release's image, where its tag does not say it.
    cuda: Callable[[str], int] = lambda version: 12


def no_share(arguments: Arguments) -> float:
    return 0.0


def no_rows() -> tuple[Row, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine. Functions are pure."""

    #: For people.
    title: str
    #: Port that it listens on inside its container.
    port: int
    source: Source
    published: Published
    #: Profile name -> profile; the first is the default.
    profiles: Mapping[str, Profile]
    #: How its container is made.
    container: Callable[[Place], Container]
    #: Arguments and the image's release (empty: unknown) -> each argument that cannot be used: name, reason, remedy.
    argument_problems: Callable[[Arguments, str], list[Finding]]
    #: What a model does in it, by the instance's arguments.
    kind: Callable[[Arguments], Kind]
    #: Kind -> what a gateway passes on. A kind that is missing cannot be served.
    paths: Mapping[Kind, Paths]
    #: Answers 200 while it serves; asked once a second, so it has to be cheap.
    health_path: str
    #: The log of the newest start -> the phase that it names last, None when it names none.
    progress: Callable[[str], Progress | None]
    #: Every phase that the newest start in a log names, where the engine names several.
    phases: Callable[[str], tuple[Phase, ...]] = lambda log: ()
    #: Does a log of an engine that still runs say that it cannot become ready any more?
    is_doomed: Callable[[str], bool] = lambda log: False
    #: Its own rows of the failure catalogue; those of cards and hosts hold for every engine.
    failures: Sequence[Failure] = ()
    #: Lines that its logger marks as information are never the cause of an end.
    has_levels: bool = True
    #: None: it counts nothing that can be read.
    metrics: Metrics | None = None
    #: Share of a whole card that must be free when it starts, from its arguments; 0: it does not ask for a share.
    share: Callable[[Arguments], float] = no_share
    #: Argument that sets the share, for remedies.
    share_argument: str = ""
    #: What a loaded model takes of each of its cards, for engines that do not ask for a share. Raises ValueError where it cannot be told.
    memory: Callable[[Instance, ModelCard, str], FixedUse] | None = None
    #: Its memory is predicted by vLLM's arithmetic (stoker/plan/memory), from vLLM's arguments.
    has_vllm_memory: bool = False
    #: Arguments whose product is the number of cards; none: any number will do.
    card_arguments: tuple[str, ...] = ()
    #: Rows of the compatibility table.
    rows: Callable[[], tuple[Row, ...]] = no_rows
    #: Environment variable in which it reads a key that it wants of clients.
    key_variable: str = ""
    #: Several prompts in one completion.
    takes_many_prompts: bool = False
    #: Sees the model directory at this path.
    model_mount: str = ""
    #: Its image has python3 and huggingface_hub, by which model files are fetched.
    fetches_models: bool = False

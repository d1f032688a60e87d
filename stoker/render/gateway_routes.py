"""The gateway's allow-list: every path, and which pools may serve it. nginx and the router both follow it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stoker.engine.engine import Paths
from stoker.engine.registry import engine_of
from stoker.spec.gateway import Kind, Pool, without_latest

#: Stands in the place of an engine where a service elsewhere is the member, which speaks OpenAI's API.
EXTERNAL = "external"

#: Kind -> what is passed on to a service elsewhere.
_SERVICE_PATHS: Mapping[Kind, Paths] = {
    "chat": Paths(("/v1/chat/completions", "/v1/completions", "/v1/responses")),
    "embeddings": Paths(("/v1/embeddings",)),
}


class Member(NamedTuple):
    """One instance as a gateway knows it."""

    #: The instance's name; where two hosts have instances of one name, ``name@host``.
    name: str
    #: ``address:port``
    address: str


@dataclass(frozen=True)
class Backend:
    """A pool and who serves it."""

    pool: Pool
    #: Of the members, which are all of one kind; or EXTERNAL.
    engine: str
    #: In the inventory's order.
    members: tuple[Member, ...]
    #: Further names of the model, which the members know too.
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """One path of the gateway."""

    path: str
    #: The path that the member sees; the gateway never passes on what the client typed.
    target: str
    method: Literal["POST", "GET"]
    kind: Kind
    #: Names of the pools among which the body's model chooses.
    pools: tuple[str, ...]
    #: The pool for a body that names no model.
    default: str | None
    prefix: str | None = None
    #: The body's model is replaced by the service's name for it, so the body has to be read.
    rewritten: bool = False

    @property
    def fixed(self) -> bool:
        """The path alone decides the pool; the body's model can only be right or wrong."""
        if self.rewritten:
            return False
        return self.prefix is not None or (len(self.pools) == 1 and not self.path.startswith("/v1/"))


def routes_of(backends: Iterable[Backend]) -> list[Route]:
    """Every route that is balanced over a pool, in a fixed order: without a prefix, then by pool."""
    backends = list(backends)
    return [*_common_routes(backends), *(route for backend in backends for route in _prefix_routes(backend))]


def _paths(backend: Backend) -> Paths:
    kind = backend.pool.kind
    return _SERVICE_PATHS[kind] if backend.pool.external else engine_of(backend.engine).paths[kind]


def _common_routes(backends: list[Backend]) -> Iterator[Route]:
    serving: dict[tuple[str, Kind], list[Pool]] = {}
    for backend in backends:
        for path in _paths(backend).posts:
            serving.setdefault((path, backend.pool.kind), []).append(backend.pool)
    for (path, kind), pools in serving.items():
        default = next((pool.name for pool in pools if pool.default), None)
        rewritten = any(pool.external for pool in pools)
        yield Route(path, path, "POST", kind, tuple(pool.name for pool in pools), default, rewritten=rewritten)


def _prefix_routes(backend: Backend) -> Iterator[Route]:
    pool = backend.pool
    if pool.prefix is None:
        return
    paths = _paths(backend)
    for target in paths.posts:
        rewritten = pool.external is not None
        yield Route(pool.prefix + target, target, "POST", pool.kind, (pool.name,), pool.name, pool.prefix, rewritten)
    for target in paths.gets:
        yield Route(pool.prefix + target, target, "GET", pool.kind, (pool.name,), pool.name, pool.prefix)


def service_targets(kind: Kind) -> tuple[str, ...]:
    """The paths of ours that go to a service elsewhere."""
    return _SERVICE_PATHS[kind].posts


def model_names(backends: Iterable[Backend]) -> dict[str, str]:
    """Each name under which a model may be asked for, and its pool. Ollama takes one with and without ``:latest``."""
    names: dict[str, str] = {}
    for backend in backends:
        model = backend.pool.model
        names |= dict.fromkeys((model, *backend.aliases), backend.pool.name)
        if backend.engine == "ollama":
            plain = without_latest(model)
            names[plain] = backend.pool.name
            if ":" not in plain:
                names[f"{plain}:latest"] = backend.pool.name
    return names

"""The gateway's allow-list: every path, and which pools may serve it. nginx and the router both follow it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stoker.engine.registry import engine_of
from stoker.spec.gateway import Kind, Pool, without_latest


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
    #: Of the members, which are all of one kind.
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

    @property
    def fixed(self) -> bool:
        """The path alone decides the pool; the body's model can only be right or wrong."""
        return self.prefix is not None or (len(self.pools) == 1 and not self.path.startswith("/v1/"))


def routes_of(backends: Iterable[Backend]) -> list[Route]:
    """Every route that is balanced over a pool, in a fixed order: without a prefix, then by pool."""
    backends = list(backends)
    return [*_common_routes(backends), *(route for backend in backends for route in _prefix_routes(backend))]


def _common_routes(backends: list[Backend]) -> Iterator[Route]:
    serving: dict[tuple[str, Kind], list[Pool]] = {}
    for backend in backends:
        for path in engine_of(backend.engine).paths[backend.pool.kind].posts:
            serving.setdefault((path, backend.pool.kind), []).append(backend.pool)
    for (path, kind), pools in serving.items():
        default = next((pool.name for pool in pools if pool.default), None)
        yield Route(path, path, "POST", kind, tuple(pool.name for pool in pools), default)


def _prefix_routes(backend: Backend) -> Iterator[Route]:
    pool = backend.pool
    if pool.prefix is None:
        return
    paths = engine_of(backend.engine).paths[pool.kind]
    for target in paths.posts:
        yield Route(pool.prefix + target, target, "POST", pool.kind, (pool.name,), pool.name, pool.prefix)
    for target in paths.gets:
        yield Route(pool.prefix + target, target, "GET", pool.kind, (pool.name,), pool.name, pool.prefix)


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

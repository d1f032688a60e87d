"""A hand-made nginx as a gateway: the pools that it balances over, and what is wrong with the way it does so. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stoker.draft.gateways import networks_of, pools_of, prefix_of, unique, word
from stoker.importer.compose import Compose, Service
from stoker.importer.engine import beside
from stoker.importer.hosts import Placed
from stoker.importer.nginx import Directive, Location, Nginx, read
from stoker.importer.notes import Notes
from stoker.models.card import Cards, ModelCard
from stoker.plan.memory.layout import ENCODERS
from stoker.spec.gateway import KEYS_SCRIPT, SCRIPTS, Gateway, Kind, Pool

#: Found in a configuration -> what a person should know. Each holds for hand-made files only: Stoker's own is made anew.
_FAULTS: tuple[tuple[str, str, str], ...] = (
    (r"if\s*\(\s*\$request_body", "if ($request_body ...) is gone", "it never matches, since the body is not read yet; the gateway routes by the JSON body's `model`"),
    (r"\bleast_conn\b(?![^}]*\bzone\b)", "least_conn without a zone", "it counts for each worker process by itself; the gateway counts over all of them"),
    (r"proxy_connect_timeout\s+(?!1s|2s)", "proxy_connect_timeout -> 2 s", "a dead host must not cost a client a minute (`limits` of the gateway)"),
    (r"proxy_(?:read|send)_timeout", "proxy_read_timeout and proxy_send_timeout -> 600 s", "a long answer, and what the OpenAI client waits (`limits` of the gateway)"),
    (r"\bserver\s+[^;{]+\b(weight|backup)\b|\bip_hash\b|\bhash\s+\$", "weights, backup servers and hashing are gone", "a request goes to the member that is well and has the fewest running"),
    (r"client_max_body_size", "client_max_body_size -> 32 MiB for JSON that is read, 100 MiB for the rest", "the gateway reads a body to find its model (`limits` of the gateway)"),
)  # fmt: skip

_KEYS = "the gateway asks nobody for a key now: give it `keys` (stoker key new)"
_NETWORKS = "the gateway lets in whoever is in `allowed_networks`: write there who may use it, as networks or addresses"

#: Directives that kept somebody out, or what was sent from being read -> what does so in a gateway.
_PROTECTS = {
    "auth_basic": _KEYS,
    "auth_request": _KEYS,
    "auth_jwt": _KEYS,
    "auth_oidc": _KEYS,
    "ssl_verify_client": _KEYS,
    "access_by_lua": _KEYS,
    "access_by_lua_block": _KEYS,
    "access_by_lua_file": _KEYS,
    "allow": _NETWORKS,
    "deny": _NETWORKS,
    "ssl_certificate": "what is sent can be read on its way now: give the gateway `tls`, with the files' place on the host",
}

#: Values with which such a directive keeps nobody out.
_HARMLESS = {("auth_basic", "off"), ("auth_request", "off"), ("auth_jwt", "off"), ("auth_oidc", "off"), ("ssl_verify_client", "off"), ("allow", "all")}  # fmt: skip

#: Variables that hold what a client is known by.
_CLIENT = re.compile(r"\$\{?(?:http_authorization|http_x_api_key|arg_)")

#: With which nginx refuses a client.
_REFUSALS = {"401", "403", "444"}

#: Directives that would be lost without a word.
_LOST = {
    "limit_req": "give the gateway `client_limits`",
    "limit_conn": "give the gateway `client_limits`",
}

#: Where a port is looked for when the file publishes none.
_FIRST_PORT = 11434


@dataclass(frozen=True)
class Found:
    """A gateway's service, and its configuration where that could be read."""

    service: Service
    compose: Compose
    address: str
    file: str
    nginx: Nginx | None


def find(service: Service, compose: Compose, address: str, notes: Notes) -> Found:
    sources = [source for source, inside in service.mounts if inside.startswith("/etc/nginx")]
    files = [file for source in sources if (place := beside(compose, source)) for file in _files(place)]
    texts = [text for file in files if (text := _text(file)) is not None]
    if not texts:
        notes.assumed(
            service.label,
            "a pool for each model",
            "its configuration is not beside the Compose file; which paths it serves, and whom it refuses, is not known",
        )
        return Found(service, compose, address, "nginx.conf", None)
    return Found(service, compose, address, files[0].name, read("\n".join(texts)))


def _files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.conf*")) if place.is_dir() else [place]


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def gateway(
    found: Found, hosts: dict[str, Sequence[Placed]], cards: Cards, image: str, used: Container[int], notes: Notes
) -> Gateway | None:
    """``hosts``: address -> its instances. ``used``: the host's ports that it cannot get without asking. None, with a note, where nothing is behind it."""
    name = found.service.label
    pools = _pools(found, hosts, cards, notes)
    if not pools:
        notes.left_out(
            name,
            "the whole service",
            "it leads to no engine of these files; name the Compose files of the hosts behind it, too",
        )
        return None
    notes.corrected(
        name,
        f"image {found.service.image} -> {image}",
        "a pinned release, whose njs (1.0.1 or newer) keeps refusing when a check fails (CVE-2026-18329)",
    )
    notes.corrected(
        name,
        "its configuration is made from the description",
        "it chooses the pool by the JSON body's `model`, and the member that is well and has least to do",
    )
    if found.nginx:
        for pattern, what, why in _FAULTS:
            if re.search(pattern, found.nginx.text):
                notes.corrected(name, what, why)
        for directive, remedy in _LOST.items():
            if any(found.nginx.tree.all(directive)):
                notes.left_out(name, f"{directive} of {found.file}", remedy)
        for what, remedy in _protections(found.nginx):
            notes.open(name, f"{what} of {found.file} is gone", remedy)
    ports = [port for port, _ in found.service.ports if port]
    own = ports[0] if ports else next(port for port in range(_FIRST_PORT, 65536) if port not in used)
    if not ports:
        notes.assumed(name, f"port {own}", "the file publishes none")
    for port in ports[1:]:
        notes.left_out(name, f"port {port}", f"a gateway has one port for HTTP, {own}, and another for `tls`")
    networks = networks_of(found.address)
    notes.corrected(
        name,
        f"allowed_networks {', '.join(networks)}",
        "a gateway has to say where its clients are; anybody else is refused",
    )
    if found.service.closed:
        notes.open(
            name,
            f"{found.service.closed} open to {', '.join(networks)} now",
            "with the host's own address alone in `allowed_networks`, only the host itself gets in, asking at that address",
        )
    return Gateway(
        container=found.service.container or f"{found.compose.project}-{found.service.name}-1",
        service=found.service.name.lower(),
        port=own,
        config_file="nginx.conf" if found.file in (*SCRIPTS, KEYS_SCRIPT) else found.file,
        pools=tuple(pools),
        allowed_networks=networks,
    )


def _protections(nginx: Nginx) -> Iterator[tuple[str, str]]:
    """What kept somebody out, and what does so in a gateway. Of a condition only the variables: it may hold a key."""
    for one in nginx.tree.all():
        if one.name in _PROTECTS and (one.name, *one.words[:1]) not in _HARMLESS:
            yield one.name, _PROTECTS[one.name]
        elif one.name == "if" and _refuses(one):
            variables = dict.fromkeys(re.findall(r"\$\{?(\w+)", " ".join(one.words)))
            yield f"if ({' '.join(f'${variable}' for variable in variables)} ...)", _KEYS


def _refuses(condition: Directive) -> bool:
    """Whether it looks at what a client is known by, or refuses whom it is about."""
    answers = {one.words[0] for one in condition.all("return") if one.words}
    return bool(_CLIENT.search(" ".join(condition.words)) or answers & _REFUSALS)


def for_replicas(members: Sequence[Placed], address: str, port: int, cards: Cards, notes: Notes) -> Gateway:
    """In front of replicas that had nothing in front of them: it has the port that they were to share."""
    engine = members[0].engine
    name = f"{engine.compose.project}-gateway"
    notes.corrected(
        name,
        f"gateway {name} on port {port}",
        "replicas cannot share a published port; clients keep their address, and it spreads their requests",
    )
    kinds = {one.instance.model: kind_of(one, cards) for one in members}
    return Gateway(
        container=name,
        service="gateway",
        port=port,
        config_file="nginx.conf",
        pools=pools_of(kinds.items()),
        allowed_networks=networks_of(address),
    )


def _pools(found: Found, hosts: dict[str, Sequence[Placed]], cards: Cards, notes: Notes) -> list[Pool]:
    """One for each model behind it, in the order of the configuration."""
    named: dict[str, tuple[str, Kind]] = {}  # model -> name of the pool
    targets: dict[str, str] = {}  # model -> upstream or address
    reached: dict[str, list[Placed]] = {}
    for target, members in _targets(found):
        for one in _members(target, members, found, hosts, notes):
            model = one.instance.model
            reached.setdefault(model, []).append(one)
            if model not in named:
                label = target if target in (found.nginx.upstreams if found.nginx else ()) else word(model)
                named[model] = (_pool_name(found.nginx, target) or label, kind_of(one, cards))
                targets[model] = target
    pools: list[Pool] = []
    for model, (label, kind) in named.items():
        name = unique(_clean(label), [pool.name for pool in pools])
        only = _only_hosts(model, reached[model], hosts, found.service.label, notes)
        pools.append(Pool(name=name, model=model, kind=kind, prefix=prefix_of(name), hosts=only))
    return [_with_default(pool, pools, targets, found.nginx) for pool in pools]


def _only_hosts(
    model: str, reached: Sequence[Placed], hosts: dict[str, Sequence[Placed]], gateway: str, notes: Notes
) -> tuple[str, ...] | None:
    """The hosts of its members, where others serve the model too. On a host a pool has all instances of the model."""
    serving = [address for address, ones in hosts.items() if any(one.instance.model == model for one in ones)]
    mine = [address for address in serving if any(one in reached for one in hosts[address])]
    joining = [
        one.instance.name
        for address in mine
        for one in hosts[address]
        if one.instance.model == model and one not in reached
    ]
    if joining:
        notes.corrected(
            gateway, f"{', '.join(joining)} gets requests too", f"a pool has every instance of {model} on its hosts"
        )
    return tuple(mine) if mine != serving else None


def _targets(found: Found) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Upstreams, then addresses that locations name themselves. Without a configuration: everything of the file."""
    if found.nginx is None:
        yield "", tuple(one.name for one in found.compose.services)
        return
    yield from found.nginx.upstreams.items()
    for location in found.nginx.locations:
        if location.target and location.target not in found.nginx.upstreams:
            yield location.target, (location.target,)


def _members(
    target: str, members: Sequence[str], found: Found, hosts: dict[str, Sequence[Placed]], notes: Notes
) -> Iterator[Placed]:
    for member in members:
        host, _, port = member.partition(":")
        here = [
            one
            for one in hosts.get(found.address, ())
            if one.engine.compose is found.compose and host in (one.engine.service.name, one.engine.service.container)
        ]
        address = found.address if host in ("127.0.0.1", "localhost", "host.docker.internal") else host
        there = [one for one in hosts.get(address, ()) if str(one.instance.port) == (port or "80")]
        if not here and not there and target:
            notes.left_out(
                found.service.label,
                f"{member} in {found.file}",
                "it is no engine of these files, and the gateway serves engines only",
            )
        yield from here or there


def kind_of(one: Placed, cards: Cards) -> Kind:
    card = cards.of(one.engine.model)
    encodes = isinstance(card, ModelCard) and card.config.get("model_type") in ENCODERS
    pooling = one.instance.arguments.get("runner") == "pooling"
    return "embeddings" if one.instance.engine == "ollama" or pooling or encodes else "chat"


def _pool_name(nginx: Nginx | None, target: str) -> str:
    """The word of a path such as /qwen/ that leads to it."""
    for location in nginx.locations if nginx else ():
        path = re.fullmatch(r"\^?/([a-z0-9][a-z0-9_-]*)(?:/.*)?", location.path)
        if location.target == target and path and prefix_of(path[1]):
            return path[1]
    return ""


def _with_default(pool: Pool, pools: Sequence[Pool], targets: dict[str, str], nginx: Nginx | None) -> Pool:
    """Of each kind the pool that plain paths lead to, else the first."""
    alike = [other for other in pools if other.kind == pool.kind]
    plain = [location.target for location in (nginx.locations if nginx else ()) if _is_plain(location)]
    chosen = next((other for other in alike if targets[other.model] in plain), alike[0])
    return pool.model_copy(update={"default": True}) if pool is chosen else pool


def _is_plain(location: Location) -> bool:
    return location.path == "/" or location.path.startswith(("/v1", "/api"))


def _clean(label: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", label.lower().partition(":")[0]).lstrip("0123456789_-")[:28] or "models"

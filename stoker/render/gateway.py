"""A gateway's files: the nginx configuration and the njs router, as text."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stoker.engine.registry import engine_of
from stoker.render import gateway_admin as admin
from stoker.render.environment import TEMPLATES, render
from stoker.render.gateway_external import (
    KEYS_DIRECTORY,
    RETRY_SECONDS,
    SERVICE_SLACK_SECONDS,
    TRUST_DIRECTORY,
    services,
)
from stoker.render.gateway_protection import TLS_DIRECTORY, distinct, limit_classes, listens_on_ipv6, networks
from stoker.render.gateway_routes import EXTERNAL, Backend, Member, Route, model_names, routes_of
from stoker.spec.gateway import KEYS_SCRIPT, SCRIPTS, SERVICE_SCRIPT, Gateway
from stoker.spec.tls import ACME_PORT

__all__ = [
    "CONFIG_DIRECTORY",
    "CONFIG_HEADER",
    "Backend",
    "Member",
    "config_identity",
    "render_gateway",
]

#: Where the container sees the gateway's files.
CONFIG_DIRECTORY = "/etc/nginx/stoker"
#: /health answers with this header: the identity of the configuration that the running nginx has loaded.
CONFIG_HEADER = "X-Stoker-Config"

#: Where the container sees what the host tells the running gateway: the file ``drained``, one member's name a line.
STATE_DIRECTORY = "/run/stoker"
#: What certbot puts there for an authority to see.
ACME_WEBROOT = "acme"
#: Where the gateway shows its members' state and its metrics, to whoever is inside the container.
INSIDE_ADDRESS = "127.0.0.2"

#: Seconds after which a client is told to try again: as long as a member that failed is left out.
RETRY_AFTER_SECONDS = 5

#: A request that failed may go to another member within this time; the engines' own slow failures come later.
RETRY_WITHIN_SECONDS = 10

#: Limit of one health check; two such silences in a row, and the member is down.
_CHECK_SECONDS = 2

#: Limit of the request by which a member that is back proves itself; Ollama loads its model for it, for up to 5 minutes (0.32.15).
_PROOF_SECONDS = 330

#: Upper bounds of the histograms, in seconds: from an embedding to a long answer of a large model.
FIRST_BYTE_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
DURATION_BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

#: Shared memory for each member: about 20 keys of state and 90 of metrics, 256 bytes each.
_STATE_KIB, _METRICS_KIB = 8, 32
#: A zone whose size changes begins empty after the reload, while old workers go on with the old one: so sizes come in few steps.
_SMALLEST_ZONE_KIB = 4096

_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_NAME = re.compile(r"[A-Za-z0-9_.@:-]+")


@dataclass(frozen=True)
class _NginxError:
    """An error that nginx itself makes, in the form that OpenAI's clients read."""

    status: int
    code: str
    message: str
    #: nginx may have no URI for the request yet, so the answer needs a location with a URI of its own.
    early: bool = False
    #: nginx's own number where it differs from the status (494: header too large, 497: plain HTTP on the port of HTTPS).
    nginx_status: int = 0
    #: Headers of the answer, with nginx's variables.
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def number(self) -> int:
        return self.nginx_status or self.status

    @property
    def body(self) -> str:
        return _error_body(self.status, self.code, self.message)


#: Only what names its member can fail in these ways; the router answers for the pools.
_ADMIN_ERRORS = (
    _NginxError(
        403,
        "admin_only",
        "Paths below /admin are for the gateway's administrators (admin_networks, and keys with admin, in group_data).",
        nginx_status=admin.REFUSED,
    ),
    _NginxError(502, "member_unreachable", "The member that the path names cannot be reached, or broke off."),
    _NginxError(504, "member_timeout", "The member that the path names did not answer in time."),
)


def render_gateway(gateway: Gateway, backends: Sequence[Backend], directory: str = CONFIG_DIRECTORY) -> dict[str, str]:
    """File name -> text of everything in the gateway's directory. The same input gives the same text.

    ``backends`` holds the members of each of the gateway's pools; ``directory`` is where nginx will see the files.
    Raises ValueError when a pool has no members or a member is not ``address:port``.
    """
    identity = config_identity(gateway, backends, directory)
    return _files(gateway, backends, directory, identity)


def config_identity(gateway: Gateway, backends: Sequence[Backend], directory: str = CONFIG_DIRECTORY) -> str:
    """The 12 hexadecimal digits that nginx answers in X-Stoker-Config once it has loaded these files."""
    files = _files(gateway, backends, directory, identity="")
    content = "".join(f"{name}\0{text}\0" for name, text in sorted(files.items()))
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _files(gateway: Gateway, backends: Sequence[Backend], directory: str, identity: str) -> dict[str, str]:
    _check(gateway, backends)
    routes = routes_of(backends)
    limits = gateway.limits
    members = _numbered(backends)
    admin_calls = admin.calls(members) if gateway.has_admins else []
    external = services(members, {backend.pool.name: backend.pool for backend in backends})
    configuration = render(
        "gateway/nginx.conf.j2",
        gateway=gateway,
        limits=limits,
        members=members,
        instances=[member for member in members if member.engine != EXTERNAL],
        services=external,
        keys_directory=KEYS_DIRECTORY,
        trust_directory=TRUST_DIRECTORY,
        service_slack_seconds=SERVICE_SLACK_SECONDS,
        inside_address=INSIDE_ADDRESS,
        zones={
            "members": f"{_zone_kib(_STATE_KIB * len(members))}k",
            "metrics": f"{_zone_kib(_METRICS_KIB * len(members))}k",
        },
        check_seconds=_CHECK_SECONDS,
        proof_seconds=_PROOF_SECONDS,
        routes=routes,
        directory=directory,
        identity=identity,
        identity_header=CONFIG_HEADER,
        admin_calls=admin_calls,
        admin_methods=admin.CALLS,
        admin_read_seconds=admin.READ_SECONDS,
        admin_refused=admin.REFUSED,
        admin_networks=distinct(gateway.admin_networks),
        errors=_nginx_errors(gateway, bool(admin_calls)),
        unknown_path=_unknown_path(routes, bool(admin_calls)),
        retry_seconds=min(RETRY_WITHIN_SECONDS, limits.read_seconds),
        networks=networks(gateway),
        tls_directory=TLS_DIRECTORY,
        acme_port=ACME_PORT,
        acme_webroot=f"{STATE_DIRECTORY}/{ACME_WEBROOT}",
        ipv6=listens_on_ipv6(gateway),
        limit_classes=limit_classes(gateway),
    )
    names = [*SCRIPTS, *([SERVICE_SCRIPT] if external else [])]
    scripts = {
        name: render(
            f"gateway/{name}.j2",
            pools=_pairs((backend.pool.name, _pool_data(backend)) for backend in backends),
            members=_pairs(
                (backend.pool.name, [member.number for member in members if member.pool == backend.pool.name])
                for backend in backends
            ),
            names=json.dumps([member.name for member in members], indent=4),
            external=json.dumps([service.number for service in external]),
            services=_pairs(
                (service.number, {"target": service.url, "retries": service.retries}) for service in external
            ),
            service_seconds=RETRY_SECONDS,
            models=_pairs(model_names(backends).items()),
            routes=_pairs((route.path, _route_data(route, backends)) for route in routes),
            parsed_limit=limits.parsed_body_mib * 1024 * 1024,
            retry_after=RETRY_AFTER_SECONDS,
            retry_seconds=min(RETRY_WITHIN_SECONDS, limits.read_seconds),
            read_seconds=limits.read_seconds,
            proof_seconds=_PROOF_SECONDS,
            state_directory=STATE_DIRECTORY,
            inside=f"http://{INSIDE_ADDRESS}:{gateway.port}",
            first_byte_bounds=json.dumps(FIRST_BYTE_BOUNDS),
            duration_bounds=json.dumps(DURATION_BOUNDS),
        )
        for name in names
    }
    if gateway.keys:
        scripts[KEYS_SCRIPT] = (TEMPLATES / "gateway" / KEYS_SCRIPT).read_text(encoding="utf-8")
    return {gateway.config_file: configuration, **scripts}


def _zone_kib(wanted: int) -> int:
    """The next power of two."""
    return max(_SMALLEST_ZONE_KIB, 1 << (wanted - 1).bit_length())


@dataclass(frozen=True)
class _Proof:
    """The request that shows that a member computes; its body as a parameter of nginx's configuration."""

    path: str
    body: str


def _proof(backend: Backend) -> _Proof:
    """Two texts at once, a short and a longer one, because engines prepare for lengths; below 512 tokens, bge's limit."""
    texts = ["Hello", "one two three four " * 32]
    if backend.pool.kind == "embeddings":
        return _Proof("/v1/embeddings", _nginx_string(json.dumps({"model": backend.pool.model, "input": texts})))
    path, body = "/v1/completions", {"model": backend.pool.model, "prompt": texts, "max_tokens": 1}
    if backend.pool.external or not engine_of(backend.engine).takes_many_prompts:
        body["prompt"] = texts[0]
    return _Proof(path, _nginx_string(json.dumps(body)))


@dataclass(frozen=True)
class _Numbered:
    """A member as the templates need it. nginx knows members by number, because it compares names without regard to case."""

    number: int
    name: str
    address: str
    pool: str
    model: str
    engine: str
    health_path: str
    proof: _Proof


def _numbered(backends: Sequence[Backend]) -> list[_Numbered]:
    pairs = [(backend, member) for backend in backends for member in backend.members]
    return [
        _Numbered(
            number,
            member.name,
            member.address,
            backend.pool.name,
            backend.pool.model,
            backend.engine,
            "" if backend.pool.external else engine_of(backend.engine).health_path,
            _proof(backend),
        )
        for number, (backend, member) in enumerate(pairs)
    ]


def _check(gateway: Gateway, backends: Sequence[Backend]) -> None:
    wanted, given = [pool.name for pool in gateway.pools], [backend.pool.name for backend in backends]
    if wanted != given:
        raise ValueError(f"gateway {gateway.container} has the pools {wanted}, but members are given for {given}")
    for backend in backends:
        if not backend.members:
            raise ValueError(
                f"pool {backend.pool.name} of gateway {gateway.container} has no members; "
                f"no instance serves {backend.pool.model}"
            )
        for member in backend.members:
            if not (_ADDRESS.fullmatch(member.address) and _NAME.fullmatch(member.name)):
                raise ValueError(
                    f"{member} in pool {backend.pool.name} of gateway {gateway.container} has no usable name or is not address:port"
                )

    names = Counter(member.name for backend in backends for member in backend.members)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"gateway {gateway.container} has members twice: {', '.join(twice)}")


def _pool_data(backend: Backend) -> dict[str, object]:
    pool = backend.pool
    return {
        "model": pool.model,
        "kind": pool.kind,
        "engine": backend.engine,
        "prefix": pool.prefix,
        "affinity": pool.affinity,
        **({"external": pool.external.model} if pool.external else {}),
    }


def _route_data(route: Route, backends: Sequence[Backend]) -> dict[str, object]:
    engines = {backend.pool.name: backend.engine for backend in backends}
    return {
        "method": route.method,
        "target": route.target,
        "pools": route.pools,
        "default": route.default,
        "prefix": route.prefix,
        "fixed": route.fixed,
        "ollama": any(engines[pool] == "ollama" for pool in route.pools),
    }


def _pairs(items: Iterable[tuple[object, object]]) -> str:
    """JavaScript for ``new Map(...)``: one pair a line. A Map has no inherited names, as an object would."""
    lines = [f"    {json.dumps(list(pair))},\n" for pair in items]
    return "[\n" + "".join(lines) + "]"


def _nginx_errors(gateway: Gateway, has_admins: bool) -> list[_NginxError]:
    limits = gateway.limits
    return [
        _NginxError(400, "bad_request", "The request is not valid HTTP.", early=True),
        _NginxError(
            401,
            "invalid_api_key",
            "This gateway needs one of its keys, as Authorization: Bearer KEY or x-api-key: KEY; none, or a wrong one, came.",
            headers=(("WWW-Authenticate", "Bearer"),),
        ),
        _NginxError(
            403,
            "network_not_allowed",
            "Your address is in none of the networks that this gateway serves (allowed_networks in group_data).",
        ),
        _NginxError(404, "unknown_path", "The gateway has no such path."),
        _NginxError(
            405,
            "method_not_allowed",
            "The gateway does not accept this method.",
            headers=(("Allow", "$stoker_allow"),) if has_admins else (),
        ),
        _NginxError(408, "request_timeout", "The request did not arrive in time."),
        _NginxError(
            413,
            "body_too_large",
            f"The request body is too large: {limits.parsed_body_mib} MiB where its model chooses the pool, "
            f"{limits.body_mib} MiB where the path does.",
        ),
        _NginxError(414, "uri_too_long", "The request's address is too long.", early=True),
        _NginxError(
            429,
            "rate_limit_exceeded",
            "This client asks for more at once, or in a minute, than it may (client_limits in group_data); wait a little.",
            headers=(("Retry-After", "$stoker_retry_after"),),
        ),
        _NginxError(431, "headers_too_large", "The request's headers are too large.", early=True, nginx_status=494),
        _NginxError(400, "https_port", "This port speaks HTTPS; write https://.", early=True, nginx_status=497),
        _NginxError(500, "gateway_error", "The gateway failed; its log says why (docker logs)."),
        _NginxError(501, "not_implemented", "The gateway does not know this transfer encoding."),
        _NginxError(505, "http_version", "The gateway speaks HTTP/1.0 and HTTP/1.1.", early=True),
        *(_ADMIN_ERRORS if has_admins else ()),
    ]


def _unknown_path(routes: Sequence[Route], has_admins: bool) -> str:
    """Names the prefixes only once: nginx takes no more than 4096 bytes in one word of its configuration."""
    paths = ", ".join([route.path for route in routes if not route.prefix] + ["/v1/models", "/health", "/ready"])
    prefixes = ", ".join(dict.fromkeys(route.prefix for route in routes if route.prefix))
    below = f", and a pool's own paths below {prefixes}" if prefixes else ""
    below += ", and an Ollama's own management below /admin/MEMBER/api" if has_admins else ""
    return _error_body(404, "unknown_path", f"The gateway has no such path. It has {paths}{below}.")


def _error_body(status: int, code: str, message: str) -> str:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _nginx_string(json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}))


def _nginx_string(text: str) -> str:
    """Text as a quoted parameter of nginx's configuration (ngx_conf_read_token). It cannot hold a dollar sign."""
    if "$" in text:
        raise ValueError(f"nginx would read a variable in {text!r}")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

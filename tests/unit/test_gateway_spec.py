"""What a gateway may look like in group_data, and what is said when it does not."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from pydantic import ValidationError

from stoker.spec.external import External, trouble_with
from stoker.spec.gateway import Gateway

LLAMA = {"name": "llama", "model": "llama3.1-8b", "kind": "chat", "prefix": "/llama", "default": True}
KEY = {"name": "team-a", "sha256": "a" * 64}
TLS = {"port": 11443, "certificate": "/etc/stoker/tls/fullchain.pem", "key": "/etc/stoker/tls/privkey.pem"}
QWEN = {"name": "qwen", "model": "qwen2.5-14b", "kind": "chat", "prefix": "/qwen"}
EMBED = {"name": "embed", "model": "bge-m3", "kind": "embeddings", "prefix": "/embed", "default": True}


def described(*pools: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "container": "bge_nginx",
        "port": 11436,
        "config_file": "nginx-unified.conf",
        "pools": list(pools),
        **changes,
    }


def problem(description: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Gateway.model_validate(description)
    return "\n".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in caught.value.errors())


def test_defaults() -> None:
    gateway = Gateway.model_validate(described(EMBED, LLAMA, QWEN))
    limits = gateway.limits
    assert gateway.service == "nginx"
    assert (limits.connect_seconds, limits.read_seconds, limits.send_seconds) == (2, 600, 600)
    assert (limits.parsed_body_mib, limits.body_mib) == (32, 100)
    assert [pool.default for pool in gateway.pools] == [True, True, False]


def test_hosts_restrict_a_pool() -> None:
    gateway = Gateway.model_validate(described({**EMBED, "hosts": ["192.168.31.65"]}))
    assert gateway.pools[0].hosts == ("192.168.31.65",)


def test_metrics_have_a_port_only_where_one_is_described() -> None:
    assert Gateway.model_validate(described(EMBED)).ports == [11436]
    assert Gateway.model_validate(described(EMBED, metrics_port=9436)).ports == [11436, 9436]
    assert "choose another metrics_port" in problem(described(EMBED, metrics_port=11436))


def test_https_takes_the_plain_port_unless_it_has_one_of_its_own() -> None:
    files = {name: TLS[name] for name in ("certificate", "key")}
    own = Gateway.model_validate(described(EMBED, tls=TLS))
    assert (own.plain_port, own.tls_port, own.ports) == (11436, 11443, [11436, 11443])
    assert own.health_url == "http://127.0.0.1:11436/health"
    instead = Gateway.model_validate(described(EMBED, tls={**files, "domain": "llm.example.org"}))
    assert (instead.plain_port, instead.tls_port, instead.ports) == (None, 11436, [11436])
    assert instead.health_url == "https://127.0.0.1:11436/health"
    assert "choose another metrics_port" in problem(described(EMBED, tls=files, metrics_port=11436))


def test_only_conversations_have_an_affinity() -> None:
    assert Gateway.model_validate(described({**LLAMA, "affinity": "prefix"})).pools[0].affinity == "prefix"
    assert "affinity is for conversations" in problem(described({**EMBED, "affinity": "prefix"}))


def test_administrators_are_by_network_or_key() -> None:
    networks = {"allowed_networks": ["192.168.31.0/24", "fd00::/8"], "admin_networks": ["192.168.31.5", "fd00:1::/64"]}
    assert Gateway.model_validate(described(EMBED, **networks)).has_admins
    assert Gateway.model_validate(
        described(EMBED, keys=[KEY, {**KEY, "name": "ops", "sha256": "b" * 64, "admin": True}])
    ).has_admins
    assert not Gateway.model_validate(described(EMBED, keys=[KEY])).has_admins


@pytest.mark.parametrize("name", ["router.js", "members.js", "health.js", "metrics.js"])
def test_the_configuration_is_not_called_as_a_script(name: str) -> None:
    assert "own script" in problem(described(EMBED, config_file=name))


def test_a_pool_needs_no_prefix() -> None:
    assert Gateway.model_validate(described({**LLAMA, "prefix": None})).pools[0].prefix is None


@pytest.mark.parametrize(
    ("pools", "expected"),
    [
        ([LLAMA, {**QWEN, "name": "llama"}], "2 pools (llama, llama) have the name 'llama'"),
        ([LLAMA, {**QWEN, "prefix": "/llama"}], "2 pools (llama, qwen) have the prefix '/llama'"),
        ([LLAMA, {**QWEN, "model": "llama3.1-8b"}], "2 pools (llama, qwen) have the model 'llama3.1-8b'"),
        (
            [EMBED, {**EMBED, "name": "more", "prefix": "/more", "model": "bge-m3:latest", "default": False}],
            "2 pools (embed, more) have the model 'bge-m3'",
        ),
        ([QWEN], "no chat pool is the default"),
        ([EMBED, QWEN], 'add "default": True to one of qwen'),
        ([LLAMA, {**QWEN, "default": True}], "2 chat pools (llama, qwen) are the default"),
        ([], "at least 1 item"),
        ([{**LLAMA, "prefix": "/v1"}], "/v1 belongs to the gateway itself"),
        ([{**LLAMA, "prefix": "/admin"}], "/admin belongs to the gateway itself"),
        ([{**LLAMA, "prefix": "/stoker"}], "/stoker belongs to the gateway itself"),
        ([{**LLAMA, "prefix": "llama"}], "pools.0.prefix"),
        ([{**LLAMA, "prefix": "/llama/"}], "pools.0.prefix"),
        ([{**LLAMA, "prefix": "/a/b"}], "pools.0.prefix"),
        ([{**LLAMA, "name": "Llama; }"}], "pools.0.name"),
        ([{**LLAMA, "kind": "images"}], "pools.0.kind"),
        ([{**LLAMA, "model": 'x"; }'}], "pools.0.model"),
        ([{**LLAMA, "hosts": []}], "pools.0.hosts"),
        ([{**LLAMA, "weight": 3}], "pools.0.weight: Extra inputs"),
    ],
)
def test_bad_pools(pools: list[dict[str, Any]], expected: str) -> None:
    assert expected in problem(described(*pools))


def test_all_clashes_are_named_at_once() -> None:
    text = problem(described(QWEN, {**QWEN, "prefix": "/other"}))
    assert "the name 'qwen'" in text
    assert "the model 'qwen2.5-14b'" in text
    assert "no chat pool is the default" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"port": 0}, "port"),
        ({"port": "11436"}, "port"),
        ({"container": "a b"}, "container"),
        ({"config_file": "../nginx.conf"}, "config_file"),
        ({"config_file": "router.js"}, "router.js is the name of the gateway's own script"),
        ({"config_file": "keys.js"}, "keys.js is the name of the gateway's own script"),
        ({"allowed_networks": ["192.168.31.7/24"]}, "write 192.168.31.0/24"),
        ({"allowed_networks": ["192.168.31.0/33"]}, "this is no IP network"),
        ({"allowed_networks": ["gpu10"]}, "this is no IP network"),
        ({"allowed_networks": ["10.0.0.0/8; }"]}, "this is no IP network"),
        ({"allowed_networks": "10.0.0.0/8"}, "allowed_networks"),
        ({"keys": [{**KEY, "sha256": "sk-the-key-itself"}]}, "keys.0.sha256"),
        ({"keys": [{**KEY, "sha256": "A" * 64}]}, "keys.0.sha256"),
        ({"keys": [{**KEY, "sha256": hashlib.sha256(b"").hexdigest()}]}, "the hash of an empty key"),
        ({"keys": [{**KEY, "name": "Team A"}]}, "keys.0.name"),
        ({"keys": [{**KEY, "name": "-"}]}, "keys.0.name"),
        ({"keys": [{**KEY, "name": "default"}]}, "default is a word of nginx's own"),
        ({"keys": [KEY, {**KEY, "sha256": "b" * 64}]}, "2 keys have the name team-a"),
        ({"keys": [KEY, {**KEY, "name": "team-b"}]}, "team-a and team-b are the same key"),
        ({"keys": [{**KEY, "key": "sk-the-key-itself"}]}, "keys.0.key: Extra inputs"),
        ({"keys": [{**KEY, "admin": "yes"}]}, "keys.0.admin"),
        ({"admin_networks": ["192.168.31.5"]}, "admin_networks has 192.168.31.5, which is in none of allowed_networks"),
        ({"admin_networks": ["10.0.0.0/7"], "allowed_networks": ["10.0.0.0/8", "::/0"]}, "has 10.0.0.0/7"),
        ({"admin_networks": ["::/0"], "allowed_networks": ["0.0.0.0/0", "fd00::/8"]}, "has ::/0"),
        ({"admin_networks": ["192.168.31.7/24"]}, "write 192.168.31.0/24"),
        ({"tls": {**TLS, "port": 11436}}, "port 11436 is the plain one"),
        ({"tls": {**TLS, "domain": "https://llm.example.org"}}, "tls.domain"),
        ({"tls": {**TLS, "domain": "llm"}}, "tls.domain"),
        ({"tls": {**TLS, "domain": "192.168.31.65"}}, "tls.domain"),
        ({"tls": {**TLS, "domain": "a.example.org; }"}}, "tls.domain"),
        ({"tls": {**TLS, "key": "/etc/stoker/keys/privkey.pem"}}, "two files in one directory"),
        ({"tls": {**TLS, "key": TLS["certificate"]}}, "two files in one directory"),
        ({"tls": {**TLS, "certificate": "tls/fullchain.pem"}}, "tls.certificate"),
        ({"tls": {**TLS, "certificate": "/etc/stoker/a.pem", "key": "/etc/stoker/b.pem"}}, "the whole directory"),
        ({"tls": {"acme": {}}}, "acme needs the domain"),
        ({"tls": {**TLS, "domain": "a.example.org", "acme": {}}}, "either your own or one by acme"),
        ({"tls": {"domain": "a.example.org"}}, "certificate and key are missing"),
        ({"tls": {"domain": "a.example.org", "certificate": TLS["certificate"]}}, "certificate and key are missing"),
        ({"tls": {"domain": "a.example.org", "acme": {"email": "me; rm"}}}, "tls.acme.email"),
        ({"tls": {"domain": "a.example.org", "acme": {"directory": "acme"}}}, "tls.acme.directory"),
        ({"port": 80, "tls": {"domain": "a.example.org", "acme": {}}}, "port 80 is where the authority"),
        ({"client_limits": {"requests_per_minute": 0}}, "client_limits.requests_per_minute"),
        ({"client_limits": {"concurrent": 0}}, "client_limits.concurrent"),
        ({"client_limits": {"burst": 5}}, "burst without requests_per_minute limits nothing"),
        ({"keys": [{**KEY, "limits": {"tokens": 1}}]}, "keys.0.limits.tokens: Extra inputs"),
        ({"limits": {"connect_seconds": 0}}, "limits.connect_seconds"),
        ({"limits": {"body_mib": 10}}, "body_mib 10 is smaller than parsed_body_mib 32"),
        ({"limits": {"read_timeout": 5}}, "limits.read_timeout: Extra inputs"),
        ({"image": "nginx:latest"}, "image: Extra inputs"),
    ],
)
def test_bad_gateways(changes: dict[str, Any], expected: str) -> None:
    assert expected in problem(described(LLAMA, **changes))


SERVICE = {"url": "https://api.openai.com/v1", "key": "OPENAI_API_KEY", "model": "text-embedding-3-small"}
OUTSIDE = {"name": "embed", "model": "text-embedding", "kind": "embeddings", "default": True}


def outside(pool: dict[str, Any] | None = None, **service: Any) -> dict[str, Any]:
    return described({**OUTSIDE, **(pool or {}), "external": {**SERVICE, **service}})


def test_an_external_service() -> None:
    ((_, service),) = Gateway.model_validate(outside()).externals
    assert (service.address, service.authority, service.host) == (
        "api.openai.com:443",
        "api.openai.com",
        "api.openai.com",
    )
    assert (service.path("/v1/embeddings"), service.has_name, service.retries) == ("/v1/embeddings", True, 2)
    lan = External.model_validate({"url": "http://10.0.0.5:8080", "model": "m"})
    assert (lan.address, lan.authority, lan.path("/v1/embeddings")) == ("10.0.0.5:8080", "10.0.0.5:8080", "/embeddings")
    assert (lan.has_name, lan.secure, lan.key) == (False, False, None)


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (outside(url="https://10.0.0.5/v1"), "write the service's name"),
        (outside(url="http://10.0.0.5:99999/v1"), "no host with a port"),
        (outside(url="http://a$b/v1"), "plain path"),
        (outside(url="http://a.test/v1;x"), "plain path"),
        (outside(url="http://[fd00::1]/v1"), "plain path"),
        (outside(key="sk-secret value"), "external.key"),
        (outside(model="x y"), "external.model"),
        (outside(retries=5), "external.retries"),
        (outside({"hosts": ["a"]}), "hosts is for pools of instances"),
        (outside({"kind": "chat", "affinity": "prefix"}), "affinity is for pools of instances"),
        (outside({"kind": "chat"}, dimensions=3), "dimensions are of embeddings"),
        (described({**OUTSIDE, "external": {**SERVICE, "aliases": ["bge-m3"]}}, {**EMBED, "default": False, "name": "e2"}), "bge-m3"),
        (described(OUTSIDE | {"external": SERVICE}, config_file="service.js"), "the gateway's own script"),
    ],
)  # fmt: skip
def test_an_external_service_that_cannot_be(description: dict[str, Any], said: str) -> None:
    assert said in problem(description)


@pytest.mark.parametrize(
    ("value", "trouble"), [("", "missing"), ("sk-proj-A_b.1", None), ('a"b', "unusable"), ("a b", "unusable")]
)
def test_a_secret_must_fit_into_a_header(value: str, trouble: str | None) -> None:
    assert trouble_with("KEY", {"KEY": value}) == trouble

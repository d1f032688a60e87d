"""A pool that a service elsewhere serves: its key, its name for the model, its refusals, and what the gateway says of it."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_process import RunningGateway, free_port, running_gateway, until
from gateway_service import Refusal, Service, running_names, running_service
from support.certificates import write_pair

from stoker.render.gateway_external import key_file, key_line
from stoker.spec.gateway import Gateway

EMBEDDINGS = "/v1/embeddings"
CHAT = "/v1/chat/completions"
BODY = {"model": "text-embedding", "input": "hello"}
NAME = "embed@127.0.0.1"


class Stage:
    """Starts gateways in front of one service."""

    def __init__(self, service: Service, directory: Path) -> None:
        self.service, self.directory = service, directory
        self.stack = contextlib.ExitStack()

    def gateway(self, url: str = "", key: str = "", keys: Any = (), **external: Any) -> RunningGateway:
        """With an embeddings pool and a chat pool at the service; ``key`` is the one that the host has."""
        at = url or f"http://127.0.0.1:{self.service.port}/openai/v1"
        service = {"url": at, "key": "OPENAI_API_KEY", "model": self.service.model, **external}
        chat = {key: value for key, value in service.items() if key not in ("dimensions", "aliases")}
        described = Gateway.model_validate(
            {
                "container": "proxy_nginx",
                "port": 11436,
                "config_file": "nginx.conf",
                "allowed_networks": ["127.0.0.0/8"],
                "keys": list(keys),
                "pools": [
                    {
                        "name": "embed",
                        "model": "text-embedding",
                        "kind": "embeddings",
                        "default": True,
                        "prefix": "/embed",
                        "external": service,
                    },
                    {"name": "chat", "model": "chat-model", "kind": "chat", "default": True, "external": chat},
                ],
            }
        )
        held = Path(f"{self.directory}-keys")
        held.mkdir(parents=True, exist_ok=True)
        for pool, _ in described.externals:
            (held / key_file(pool)).write_text(key_line(key or self.service.key))
        return self.stack.enter_context(running_gateway(described, [], self.directory))


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service(Service()) as running:
        yield running


@pytest.fixture
def stage(service: Service, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(service, tmp_path / "etc")
    with made.stack:
        yield made


def test_the_service_gets_its_key_and_its_name_for_the_model_and_nothing_of_the_client(
    stage: Stage, service: Service
) -> None:
    gateway = stage.gateway(aliases=["ada"])
    private = {
        "Authorization": "Bearer client",
        "X-Api-Key": "client",
        "Cookie": "client",
        "X-Stoker-Patience": "9e9 1",
    }
    reply = gateway.ask(EMBEDDINGS, BODY, headers={**private, "User-Agent": "test"})
    assert (reply.status, reply.json["data"][0]["embedding"]) == (200, [0.5, 0.25])
    assert reply.json["model"] == "text-embedding-3-small-2024", "the answer is the service's own"
    (seen,) = service.seen
    assert (seen.path, seen.body) == ("/openai/v1/embeddings", {"model": "text-embedding-3-small", "input": "hello"})
    expected = {
        "authorization": f"Bearer {service.key}",
        "host": f"127.0.0.1:{service.port}",
        "content-type": "application/json",
        "user-agent": "test",
        "accept-encoding": "identity",
    }
    assert {name: value for name, value in seen.headers.items() if name != "content-length"} == expected
    assert not {"set-cookie", "openai-organization"} & set(reply.headers)
    line = gateway.log_of(reply)
    assert (line["pool"], line["model"], line["member"], line["member_status"]) == (
        "embed",
        "text-embedding",
        NAME,
        "200",
    )
    for body in ({"model": "ada", "input": "x"}, {"input": "x"}):
        assert gateway.ask(EMBEDDINGS, body).status == 200
    assert gateway.ask("/embed" + EMBEDDINGS, BODY).status == 200
    assert gateway.ask(CHAT, {"model": "chat-model", "messages": []}).json["choices"]
    assert gateway.ask(EMBEDDINGS, {"model": service.model}).error["code"] == "model_not_found"
    assert {request.body["model"] for request in service.seen} == {service.model}
    assert service.key not in gateway.output()


def test_a_large_body_arrives_whole(stage: Stage, service: Service) -> None:
    text = 'ä\u2028"\\' * 700_000
    assert stage.gateway().ask("/embed" + EMBEDDINGS, BODY | {"input": text}).status == 200
    assert service.seen[0].body["input"] == text


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again(stage: Stage, service: Service, status: int) -> None:
    service.refusals = [Refusal(status, {"Retry-After": "0", "Cache-Control": "no-store"}), Refusal(status)]
    gateway = stage.gateway()
    began = time.monotonic()
    reply = gateway.ask(EMBEDDINGS, BODY)
    assert reply.status == 200
    assert "cache-control" not in reply.headers
    assert time.monotonic() - began > 0.5, "without a word of the service it waits a second before the third try"
    assert len(service.seen) == 3
    line = gateway.log_of(reply)
    assert (line["member"], line["member_status"]) == (", ".join([NAME] * 3), f"{status}, {status}, 200")
    metrics = gateway.inside("/metrics").body.decode()
    assert f'failed_tries_total{{pool="embed",member="{NAME}",reason="status"}} 2' in metrics
    assert 'retries_total{pool="embed"} 2' in metrics
    assert gateway.member(NAME)["in_flight"] == 0


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_the_last_refusal_is_the_services_own(stage: Stage, service: Service, retries: int) -> None:
    service.refusals = [Refusal(429, {"Retry-After": "0"})] * 9
    reply = stage.gateway(retries=retries).ask(EMBEDDINGS, BODY)
    assert (reply.status, reply.json["error"]["code"], reply.headers["retry-after"]) == (429, "its_own", "0")
    assert len(service.seen) == 1 + retries


def test_a_service_that_asks_for_a_long_wait_is_believed_and_not_waited_for(stage: Stage, service: Service) -> None:
    service.refusals = [Refusal(429, {"Retry-After": "31"})]
    began = time.monotonic()
    reply = stage.gateway().ask(EMBEDDINGS, BODY)
    assert (reply.status, reply.json["error"]["code"], reply.headers["retry-after"]) == (429, "its_own", "31")
    assert time.monotonic() - began < 5
    assert len(service.seen) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500, 502, 504])
def test_other_refusals_pass_unchanged(stage: Stage, service: Service, status: int) -> None:
    service.refusals = [Refusal(status, {"X-Accel-Redirect": "/health", "X-Stoker-Wait": "1"})]
    reply = stage.gateway().ask(EMBEDDINGS, BODY)
    assert (reply.status, reply.body) == (status, Refusal(status).body)
    assert len(service.seen) == 1


def test_a_wrong_key_is_the_gateways_fault_and_is_not_shown(stage: Stage, service: Service) -> None:
    gateway = stage.gateway(key="sk-wrong")
    reply = gateway.ask(EMBEDDINGS, BODY)
    assert (reply.status, reply.error["code"]) == (502, "service_key_refused")
    assert b"sk-wrong" not in reply.body
    assert gateway.log_of(reply)["member_status"] == "401"


def test_the_gateways_own_keys_stay_here(stage: Stage, service: Service) -> None:
    key = {"name": "team", "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"}
    gateway = stage.gateway(keys=[key])
    assert gateway.ask(EMBEDDINGS, BODY).error["code"] == "invalid_api_key"
    assert gateway.ask(EMBEDDINGS, BODY, headers={"Authorization": "Bearer secret"}).status == 200
    assert [request.headers["authorization"] for request in service.seen] == [f"Bearer {service.key}"]


def test_streams_pass_piece_by_piece_also_after_a_retry(stage: Stage, service: Service) -> None:
    service.refusals = [Refusal(429, {"Retry-After": "0"})]
    gateway = stage.gateway()
    with contextlib.closing(gateway.open(CHAT, {"model": "chat-model", "stream": True})) as connection:
        text = connection.makefile("rb")
        assert b" 200 " in text.readline()
        read: list[bytes] = []

        def piece() -> bytes:
            while not (line := text.readline()).startswith(b"data: "):
                assert line
            return line

        for number in range(3):
            read.append(piece())  # the service sends the next one only when this one has come
            assert json.loads(read[-1][6:]) == {"piece": number}
            service.gate.release()


def test_a_client_that_leaves_a_stream_ends_it_at_the_service(stage: Stage, service: Service) -> None:
    service.pieces = 1_000_000
    gateway = stage.gateway()
    with contextlib.closing(gateway.open(CHAT, {"model": "chat-model", "stream": True})) as connection:
        connection.recv(16)

    def noticed() -> bool:
        service.gate.release()
        return service.left.is_set()

    until(noticed)
    until(lambda: gateway.member("chat@127.0.0.1")["in_flight"] == 0)


def test_a_service_that_is_not_there(stage: Stage) -> None:
    gateway = stage.gateway(url=f"http://127.0.0.1:{free_port()}", retries=1)
    assert gateway.ask("/ready").json == {"status": "ready", "pools": ["embed", "chat"], "not_asked": ["embed", "chat"]}
    reply = gateway.ask(EMBEDDINGS, BODY)
    assert (reply.status, reply.error["code"]) == (503, "no_member_available")
    assert "cannot be reached" in reply.error["message"]
    assert gateway.log_of(reply)["member"] == f"{NAME}, {NAME}"
    assert until(lambda: gateway.member(NAME)["health"] == "down")
    assert "embed (text-embedding)" in gateway.ask("/ready").error["message"]
    assert [model["id"] for model in gateway.ask("/v1/models").json["data"]] == ["chat-model"]


def test_a_service_that_breaks_off_is_not_asked_twice(stage: Stage, service: Service) -> None:
    service.resets = True
    reply = stage.gateway().ask(EMBEDDINGS, BODY)
    assert (reply.status, reply.error["code"]) == (503, "no_member_available")
    assert len(service.seen) == 1


def test_nobody_asks_the_service_unless_a_client_does(stage: Stage, service: Service) -> None:
    gateway = stage.gateway()
    assert [model["id"] for model in gateway.ask("/v1/models").json["data"]] == ["text-embedding", "chat-model"]
    assert [model["id"] for model in gateway.ask("/embed/v1/models").json["data"]] == ["text-embedding"]
    assert (gateway.member(NAME)["health"], gateway.member(NAME)["external"]) == ("unknown", True)
    # js_periodic has looked at everything twice a second meanwhile.
    gateway.drain(NAME)
    until(lambda: gateway.member(NAME)["drained"])
    assert not service.seen
    assert until(lambda: (said := gateway.ask(EMBEDDINGS, BODY)).status == 503 and "drained" in said.error["message"])
    gateway.drain()
    until(lambda: not gateway.member(NAME)["drained"])
    assert gateway.ask(EMBEDDINGS, BODY).status == 200
    assert until(lambda: gateway.member(NAME)["health"] == "up")


def test_https_is_verified_by_the_hosts_authorities_and_names_are_resolved_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = write_pair(tmp_path / "service")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, public.parent / "privkey.pem")
    trust = tmp_path / "etc-trust"
    trust.mkdir()
    (trust / "ca-certificates.crt").write_text(public.read_text())
    with running_service(Service(), context) as service, running_names() as names:
        stage = Stage(service, tmp_path / "etc")
        with stage.stack:
            names.knows = False
            gateway = stage.gateway(url=f"https://gateway.test:{service.port}/v1", retries=0)
            assert gateway.ask("/health").status == 200, "it starts without knowing the name"
            assert gateway.ask(EMBEDDINGS, BODY).status == 503
            names.knows = True
            reply = until(lambda: (said := gateway.ask(EMBEDDINGS, BODY)).status == 200 and said)
            assert reply.json["data"]
            assert service.seen[-1].headers["host"] == f"gateway.test:{service.port}"
        for url, text in (
            (f"https://other.test:{service.port}", public.read_text()),
            (f"https://gateway.test:{service.port}", ""),
        ):
            # Another name than the certificate's; an authority that nobody trusts.
            (trust / "ca-certificates.crt").write_text(text or write_pair(tmp_path / "other").read_text())
            before = len(service.seen)
            stage = Stage(service, tmp_path / "etc")
            with stage.stack:
                gateway = stage.gateway(url=url, retries=0)
                until(lambda gateway=gateway: "SSL" in gateway.output() or gateway.ask(EMBEDDINGS, BODY).status != 503)
                assert gateway.ask(EMBEDDINGS, BODY).status == 503
                assert "certificate" in gateway.output()
            assert len(service.seen) == before

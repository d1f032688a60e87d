"""Ollama's own management: for administrators, at the member that the path names, and closed to everybody else."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import threading
from collections.abc import Iterator

import gateway_fleet
import ollama
import pytest
from gateway_members import Member, running_members
from gateway_process import RunningGateway, StartProtected, running_gateway

OPS, CLIENT = "sk-of-the-administrator-0123", "sk-of-a-mere-client-01234567"
#: An administrator's address, and one of a client.
DESK, OTHER, OUTSIDER = "127.5.5.5", "127.6.6.6", "127.9.9.9"
PULL = {"model": "bge-m3", "stream": False}

READS = [("/", "GET"), ("", "GET"), ("/api/version", "GET"), ("/api/tags", "GET"), ("/api/ps", "GET"), ("/api/tags", "HEAD"), ("/", "HEAD")]  # fmt: skip
WRITES = [(f"/api/{name}", "POST") for name in ("show", "pull", "push", "create", "copy")] + [("/api/delete", "DELETE")]


def key(name: str, value: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": hashlib.sha256(value.encode()).hexdigest(), **more}


@pytest.fixture(scope="module")
def shared(all_members: list[Member], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """By network, without keys."""
    gateway = gateway_fleet.unified_with(
        allowed_networks=["127.0.0.1", f"{DESK}/32", "127.6.0.0/16"], admin_networks=[DESK]
    )
    with running_gateway(gateway, all_members, tmp_path_factory.mktemp("admin") / "etc") as running:
        yield running


@pytest.fixture
def by_network(shared: RunningGateway, all_members: list[Member]) -> RunningGateway:
    for member in all_members:
        member.forget()
    return shared


@pytest.mark.parametrize(("path", "method"), READS + WRITES)
def test_an_administrator_reaches_the_member_that_the_path_names(
    by_network: RunningGateway, all_members: list[Member], path: str, method: str
) -> None:
    body = None if method in ("GET", "HEAD") else PULL
    reply = by_network.ask(f"/admin/ollama_1{path}?x=1", body, method=method, source=DESK)
    assert reply.status == 200
    if path == "/api/version":  # which members do not note, because they are asked it all the time
        assert (reply.json["member"], reply.json["path"]) == ("ollama_1", path)
    else:
        line = f"{method} {path or '/'} HTTP/1.1"
        assert {member.name: member.lines for member in all_members if member.lines} == {"ollama_1": [line]}
    if body:
        assert json.loads(all_members[1].received[-1].body) == PULL
    entry = by_network.log_of(reply)
    assert (entry["path"], entry["pool"], entry["member"], entry["status"]) == (
        f"/admin/ollama_1{path}",
        "embed",
        "ollama_1",
        "200",
    )


def test_ollamas_own_client_takes_a_member_for_its_server(protected: StartProtected, all_members: list[Member]) -> None:
    gateway = protected(keys=[key("ops", OPS, admin=True)])
    client = ollama.Client(host=f"http://127.0.0.1:{gateway.port}/admin/ollama_0", headers={"x-api-key": OPS})
    client.ps()
    client.pull("bge-m3")
    client.delete("bge-m3")
    assert [line.rsplit(" ", 1)[0] for line in all_members[0].lines] == [
        "GET /api/ps",
        "POST /api/pull",
        "DELETE /api/delete",
    ]


@pytest.mark.parametrize("path", ["/admin/ollama_0/api/pull", "/admin/ollama_0/", "/admin/nobody/api/pull", "/admin", "/admin/"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    ("source", "code"), [(OTHER, "admin_only"), ("127.0.0.1", "admin_only"), (OUTSIDER, "network_not_allowed")]
)
def test_everybody_else_is_refused_and_learns_no_name(
    by_network: RunningGateway, all_members: list[Member], path: str, method: str, source: str, code: str
) -> None:
    reply = by_network.ask(path, None if method == "GET" else PULL, method=method, source=source)
    assert (reply.status, reply.error["code"]) == (403, code)
    assert not any(member.lines for member in all_members)
    assert by_network.log_of(reply)["status"] == "403"


#: Calls that nobody may make, and ways to write a path that some server takes for another one.
TRICKS = [
    "/admin/ollama_0/api/blobs/sha256:29fdb92e57cf0827ded04ae6461b5931d01fa595843f55d36f5b275a52087dd2", "/admin/ollama_0/api/generate",
    "/admin/ollama_0/api/chat", "/admin/ollama_0/api/embed", "/admin/ollama_0/api/signout", "/admin/ollama_0/v1/models", "/admin/ollama_0/api",
    "/admin/ollama_0/api/", "/admin/ollama_0/api/pull/", "/admin/ollama_0//api/pull", "//admin/ollama_0/api/pull", "/admin//ollama_0/api/pull",
    "/ADMIN/ollama_0/api/pull", "/admin/OLLAMA_0/api/pull", "/admin/ollama_0/API/pull", "/admin/ollama_0/api/%70ull", "/admin/ollama_0/api%2fpull",
    "/admin/%6fllama_0/api/pull", "/%61dmin/ollama_0/api/pull", "/admin/ollama_0/../ollama_1/api/pull", "/admin/ollama_0/api/../api/pull",
    "/x/../admin/ollama_0/api/pull", "/admin/./ollama_0/api/pull", "/admin/ollama_0/api/pull;x", "/admin/ollama_0/api/pull%3fx", "/admin/ollama_0/api/pull%20",
    "/admin/llama_0/api/pull", "/admin/llama_0/", "/admin/llama_0/metrics", "/admin/qwen/v1/load_lora_adapter", "/admin/embed/api/pull", "/admin/ollama_2/api/pull",
    "/admin/127.0.0.1:11434/api/pull", "/api/pull", "/embed/api/pull", "/embed/admin/ollama_0/api/pull", "/embed/../admin/ollama_0/api/pull",
]  # fmt: skip


@pytest.mark.parametrize("source", [DESK, OTHER])
def test_nothing_else_is_open_not_even_to_an_administrator(
    by_network: RunningGateway, all_members: list[Member], source: str
) -> None:
    for path in TRICKS:
        for method in ("POST", "GET", "DELETE"):
            data = json.dumps(PULL)
            reply = by_network.send(
                f"{method} {path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode(),
                source=source,
            )
            allowed = {"unknown_path"} if source == DESK else {"unknown_path", "admin_only"}
            assert (reply.status in (404, 403), reply.error["code"] in allowed) == (True, True), (path, method)
    assert not any(member.lines for member in all_members)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Original-URL", "X-Rewrite-URL", "X-Accel-Redirect"])  # fmt: skip
def test_no_header_makes_an_administrator(by_network: RunningGateway, all_members: list[Member], header: str) -> None:
    for value in (DESK, "/admin/ollama_0/api/pull"):
        reply = by_network.ask("/admin/ollama_0/api/pull", PULL, headers={header: value}, source=OTHER)
        assert reply.error["code"] == "admin_only"
        by_network.ask("/v1/models", headers={header: value}, source=OTHER)
    assert not any("api/" in line for member in all_members for line in member.lines)


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [("/api/pull", "GET", "POST"), ("/api/delete", "POST", "DELETE"), ("/api/ps", "DELETE", "GET, HEAD"), ("/", "POST", "GET, HEAD")],
)  # fmt: skip
def test_each_call_has_its_method(by_network: RunningGateway, path: str, method: str, allow: str) -> None:
    reply = by_network.ask(f"/admin/ollama_0{path}", None if method == "GET" else PULL, method=method, source=DESK)
    assert (reply.status, reply.error["code"], reply.headers["allow"]) == (405, "method_not_allowed", allow)


def test_progress_comes_in_pieces(by_network: RunningGateway, all_members: list[Member]) -> None:
    member = all_members[0]
    member.gate = threading.Semaphore(1)
    connection = http.client.HTTPConnection("127.0.0.1", by_network.port, timeout=20, source_address=(DESK, 0))
    with contextlib.closing(connection):
        connection.request("POST", "/admin/ollama_0/api/pull", json.dumps({"model": "bge-m3", "stream": True}))
        answer = connection.getresponse()
        assert b'"piece": 0' in answer.readline(), "while the rest of it waits"
        member.gate.release(2)
        assert b"[DONE]" in answer.read()


@pytest.mark.parametrize("mode", ["reset", "stopped"])
def test_a_member_that_fails_is_said_in_the_usual_form_and_no_other_is_asked(
    tmp_path_factory: pytest.TempPathFactory, mode: str
) -> None:
    members = gateway_fleet.members()
    gateway = gateway_fleet.unified_with(allowed_networks=["127.0.0.1"], admin_networks=["127.0.0.1"])
    with (
        running_members(members) as runner,
        running_gateway(gateway, members, tmp_path_factory.mktemp("failing") / "etc") as running,
    ):
        if mode == "stopped":
            runner.stop(members[0])
        else:
            members[0].mode = "reset"
        reply = running.ask("/admin/ollama_0/api/pull", PULL)
    assert (reply.status, reply.error["code"]) == (502, "member_unreachable")
    assert [len(member.received) for member in members[:2]] == [1 if mode == "reset" else 0, 0]


def test_an_administrators_key_opens_and_a_clients_does_not(
    protected: StartProtected, all_members: list[Member]
) -> None:
    gateway = protected(keys=[key("ops", OPS, admin=True), key("team-a", CLIENT)])
    path = "/admin/ollama_0/api/pull"
    assert gateway.ask(path, PULL).error["code"] == "invalid_api_key"
    assert gateway.ask(path, PULL, headers={"x-api-key": "-"}).error["code"] == "invalid_api_key"
    refused = gateway.ask(path, PULL, headers={"x-api-key": CLIENT})
    assert (refused.status, refused.error["code"]) == (403, "admin_only")
    assert not all_members[0].received
    reply = gateway.ask(path, PULL, headers={"Authorization": f"Bearer {OPS}"})
    assert (reply.status, gateway.log_of(reply)["key"]) == (200, "ops")
    assert not {"authorization", "x-api-key"} & set(all_members[0].received[-1].headers)
    assert gateway.ask(path, PULL, headers={"x-api-key": OPS}, source=OUTSIDER).error["code"] == "network_not_allowed"
    assert gateway.ask("/v1/models", headers={"x-api-key": OPS}).status == 200


def test_an_administrators_network_needs_a_key_where_all_do(protected: StartProtected) -> None:
    gateway = protected(
        allowed_networks=["127.0.0.0/8"],
        admin_networks=[DESK],
        keys=[key("team-a", CLIENT), key("ops", OPS, admin=True)],
    )
    path = "/admin/ollama_0/api/tags"
    assert gateway.ask(path, source=DESK).error["code"] == "invalid_api_key"
    assert gateway.ask(path, source=DESK, headers={"x-api-key": CLIENT}).status == 200
    assert gateway.ask(path, source=OTHER, headers={"x-api-key": CLIENT}).error["code"] == "admin_only"
    assert gateway.ask(path, source=OTHER, headers={"x-api-key": OPS}).status == 200


def test_nothing_is_open_by_default(gateway: RunningGateway, all_members: list[Member]) -> None:
    for path in ("/admin/ollama_0/api/pull", "/admin/ollama_0/", "/admin", "/admin/ollama_0/api/tags"):
        for method in ("GET", "POST"):
            reply = gateway.ask(path, PULL if method == "POST" else None, method=method)
            assert (reply.status, reply.error["code"]) == (404, "unknown_path")
    assert not any(member.lines for member in all_members)

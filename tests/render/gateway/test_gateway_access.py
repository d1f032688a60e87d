"""Who may use the gateway: networks and keys, decided before a body is read."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from pathlib import Path

import gateway_fleet
import pytest
from gateway_members import Member
from gateway_process import RunningGateway, StartProtected, read_reply, running_gateway, until

CHAT = "/v1/chat/completions"
QWEN = {"model": "qwen2.5-14b", "messages": [{"role": "user", "content": "hello"}]}
KEYS = {"team-a": "sk-test-of-team-a-0123456789", "team_b": "sk-test-of-team-b-0123456789"}
OUTSIDER = "127.9.9.9"


def described(keys: dict[str, str] = KEYS) -> list[dict[str, str]]:
    return [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in keys.items()]


def reached(members: list[Member]) -> int:
    return sum(len(member.received) for member in members)


# --- networks ---


def test_an_address_outside_is_refused_and_one_inside_is_not(
    protected: StartProtected, all_members: list[Member]
) -> None:
    gateway = protected(allowed_networks=["127.1.0.0/16", "127.2.3.4"])
    for inside in ("127.0.0.1", "127.1.0.1", "127.1.255.255", "127.2.3.4"):
        assert gateway.ask(CHAT, QWEN, source=inside).status == 200, inside
    before = reached(all_members)
    for outside in ("127.0.0.2", "127.2.0.0", "127.2.3.5", OUTSIDER):
        reply = gateway.ask(CHAT, QWEN, source=outside)
        assert (reply.status, reply.error["code"]) == (403, "network_not_allowed"), outside
        assert "x-request-id" in reply.headers
    assert reached(all_members) == before
    entry = gateway.log_of(reply)
    assert (entry["status"], entry["client"], entry["member"]) == ("403", OUTSIDER, "")


@pytest.mark.parametrize(
    "path", [CHAT, "/v1/models", "/llama/v1/models", "/ready", "/no/such/path", "/stoker/models/llama", "/"]
)
def test_an_outsider_learns_nothing(protected: StartProtected, path: str) -> None:
    reply = protected().ask(path, source=OUTSIDER)
    assert (reply.status, reply.error["code"]) == (403, "network_not_allowed")


def test_health_is_for_everybody_and_says_no_more_than_that(protected: StartProtected) -> None:
    reply = protected(keys=described()).ask("/health", source=OUTSIDER)
    assert (reply.status, reply.body) == (200, b"OK")
    assert "x-stoker-config" in reply.headers


@pytest.mark.parametrize(
    "path", ["//health", "/health/", "/x/../v1/models", "/health/../v1/models", "/health%2f..%2fv1/models"]
)
def test_no_way_around_by_the_open_path(protected: StartProtected, path: str) -> None:
    assert protected().send(
        f"GET {path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n".encode(), source=OUTSIDER
    ).status in (403, 404)


def test_everybody_may_be_let_in(protected: StartProtected) -> None:
    assert protected(allowed_networks=["0.0.0.0/0", "::/0"]).ask(CHAT, QWEN, source=OUTSIDER).status == 200


def test_an_outsiders_errors_have_the_same_form(protected: StartProtected) -> None:
    gateway = protected()
    for request, status in (
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: g\r\n\r\n", 414),
    ):
        reply = gateway.send(request, source=OUTSIDER)
        assert reply.status == status
        assert reply.error


def test_networks_of_ipv6(tmp_path: Path, all_members: list[Member]) -> None:
    gateway = gateway_fleet.unified_with(allowed_networks=["2001:db8:1::/48"])
    addresses = ("2001:db8:1::5", "2001:db8:2::5")
    with running_gateway(gateway, all_members, tmp_path / "etc", addresses=addresses) as running:
        # The members are on the other side of the network namespace: whoever comes in hears that none can be reached.
        found = {source: asked_by_curl(running, "[::1]", source, "/v1/models") for source in (*addresses, "::1")}
    assert found == {addresses[0]: "503", addresses[1]: "403", "::1": "503"}


def asked_by_curl(running: RunningGateway, host: str, source: str, path: str) -> str:
    """The status that a client of the gateway's own network namespace gets."""
    command = ["nsenter", "--net", "-t", str(running.process.pid), "curl", "-qsg", "--interface", source]
    command += ["--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", f"http://{host}:{running.port}{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


# --- keys ---


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEYS['team-a']}"},
        {"authorization": f"bearer  {KEYS['team-a']} "},
        {"x-api-key": KEYS["team-a"]},
        {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": KEYS["team-a"]},
    ],
)
def test_a_key_opens_and_its_name_is_in_the_log(
    protected: StartProtected, all_members: list[Member], headers: dict[str, str]
) -> None:
    gateway = protected(keys=described())
    reply = gateway.ask(CHAT, QWEN, headers=headers)
    assert (reply.status, gateway.log_of(reply)["key"]) == (200, "team-a")
    seen = all_members[-1].received[-1]
    assert not {"authorization", "x-api-key"} & set(seen.headers)


@pytest.mark.parametrize("path", [CHAT, "/llama/v1/models", "/embed/api/tags", "/v1/models", "/no/such/path"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer sk-wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": KEYS["team-a"]},
        {"Authorization": f"Bearer {KEYS['team-a']}x"},
        {"Authorization": f"Bearer {KEYS['team-a']} {KEYS['team-a']}"},
        {"Authorization": f"Bearer {KEYS['team-a'].upper()}"},
        {"Authorization": f"Bearer {hashlib.sha256(KEYS['team-a'].encode()).hexdigest()}"},
        {"Authorization": "Bearer team-a"},
        {"Authorization": "Bearer -"},
        {"Authorization": "Bearer sk-wrong", "x-api-key": KEYS["team-a"]},
        {"x-api-key": "-"},
    ],
)
def test_without_a_right_key_nothing(
    keyed: RunningGateway, all_members: list[Member], path: str, headers: dict[str, str]
) -> None:
    before = reached(all_members)
    reply = keyed.ask(path, QWEN if path == CHAT else None, headers=headers)
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert keyed.log_of(reply)["key"] == "-"
    assert reached(all_members) == before


@pytest.fixture(scope="module")
def keyed(all_members: list[Member], tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    gateway = gateway_fleet.unified_with(keys=described())
    with running_gateway(gateway, all_members, tmp_path_factory.mktemp("keyed") / "etc") as running:
        yield running


def test_two_headers_with_keys_are_refused_or_the_first_counts(
    keyed: RunningGateway, all_members: list[Member]
) -> None:
    body = json.dumps(QWEN).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nContent-Length: {len(body)}\r\nAuthorization: Bearer sk-wrong\r\n"
    reply = keyed.send(f"{head}Authorization: Bearer {KEYS['team-a']}\r\n\r\n".encode() + body)
    assert reply.status in (400, 401)


def test_the_body_of_a_client_without_a_key_is_not_waited_for(keyed: RunningGateway) -> None:
    with socket.create_connection(("127.0.0.1", keyed.port), 10) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nContent-Length: 94371840\r\n\r\n".encode())
        assert read_reply(connection).status == 401, "though not one byte of the body was sent"


def test_the_body_of_a_client_without_a_key_is_kept_nowhere(keyed: RunningGateway) -> None:
    """90 MiB of it: by the memory and the temporary files of nginx's processes."""
    # every worker's scripts, the checks of the members among them, take memory of their own when they first run
    until(lambda: all(one["health"] == "up" for one in keyed.inside("/members").json["members"]))
    assert {keyed.ask(CHAT, {}).status for _ in range(64)} == {401}
    before = keyed.memory()
    chunk = b"x" * 2**20
    with socket.create_connection(("127.0.0.1", keyed.port), 30) as connection:
        head = f"POST /llama{CHAT} HTTP/1.1\r\nHost: g\r\nContent-Length: {90 * len(chunk)}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(90):
            connection.sendall(chunk)
        assert keyed.memory() - before < 2 * 2**20
        assert not keyed.temporary_files()
        assert read_reply(connection).status == 401
    # The same from a client that has a key is kept: what is looked at above can be seen.
    with socket.create_connection(("127.0.0.1", keyed.port), 30) as connection:
        head = head.replace("Host: g", f"Host: g\r\nx-api-key: {KEYS['team-a']}")
        connection.sendall(head.encode() + 20 * chunk)
        keyed.until_temporary_files()


def test_expect_100_continue_is_not_answered_without_a_key(keyed: RunningGateway) -> None:
    with socket.create_connection(("127.0.0.1", keyed.port), 10) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_ready_needs_no_key(keyed: RunningGateway) -> None:
    assert keyed.ask("/ready").status == 200


def test_the_list_of_models_with_a_key(keyed: RunningGateway) -> None:
    reply = keyed.ask("/v1/models", headers={"Authorization": f"Bearer {KEYS['team_b']}"})
    assert [entry["id"] for entry in reply.json["data"]] == ["bge-m3", "llama3.1-8b", "qwen2.5-14b"]
    assert keyed.log_of(reply)["key"] == "team_b"


def test_no_key_is_in_a_file_or_a_log(protected: StartProtected, all_members: list[Member], tmp_path: Path) -> None:
    gateway = protected(keys=described())
    wrong = "sk-wrong-but-maybe-of-another-service"
    for key in (*KEYS.values(), wrong):
        for headers in ({"Authorization": f"Bearer {key}"}, {"x-api-key": key}):
            replies = [gateway.ask(path, QWEN, headers=headers) for path in (CHAT, "/v1/none", "/llama/v1/completions")]
            replies.append(gateway.ask(CHAT, raw=b"no json", headers=headers))
            assert not any(key.encode() in reply.body for reply in replies)
    assert gateway.log("/llama/v1/completions")
    written = gateway.output() + "".join(path.read_text() for path in (tmp_path / "etc").iterdir())
    assert all(key not in written for key in (*KEYS.values(), wrong))


def test_network_and_key_are_both_asked_for(protected: StartProtected) -> None:
    gateway = protected(keys=described())
    reply = gateway.ask(CHAT, QWEN, headers={"x-api-key": KEYS["team-a"]}, source=OUTSIDER)
    assert (reply.status, reply.error["code"]) == (403, "network_not_allowed")


def test_without_keys_the_engines_key_passes(protected: StartProtected, all_members: list[Member]) -> None:
    gateway = protected()
    reply = gateway.ask(CHAT, QWEN, headers={"Authorization": "Bearer of-the-engine"})
    assert all_members[-1].received[-1].headers["authorization"] == "Bearer of-the-engine"
    assert gateway.log_of(reply)["key"] == "-"

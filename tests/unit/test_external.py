"""A service elsewhere behind a gateway, through description, preflight, steps, smoke, endpoints and drain."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml
from support.fleet import Data, make_fleet
from support.states import NOW, bare, converged, file_state, steps

from stoker.endpoints.endpoint import find
from stoker.facts.state import FileState, HostState
from stoker.plan.finding import Finding
from stoker.plan.preflight import findings
from stoker.render.compose import compose_file
from stoker.render.gateway_external import key_line
from stoker.run import drain
from stoker.smoke.checks_gateway import checks
from stoker.smoke.checks_host import HostWitness
from stoker.smoke.target import entrances
from stoker.spec.fleet import Fleet, Host
from stoker.spec.problems import SpecError
from stoker.steps import service_keys
from stoker.steps.action import Action, File
from stoker.steps.questions import questions
from stoker.steps.stack import backends, uuids

SECRET = "sk-proj-of_the-test"
KEY_FILE = "/etc/stoker/services/proxy_nginx/embed.conf"
NOTE = "/var/lib/stoker/services-proxy_nginx"
EMBED = {
    "name": "embed",
    "model": "text-embedding",
    "kind": "embeddings",
    "default": True,
    "external": {
        "url": "https://api.openai.com/v1",
        "key": "OPENAI_API_KEY",
        "model": "text-embedding-3-small",
        "dimensions": 1536,
    },
}
CHAT = {
    "name": "chat",
    "model": "small",
    "kind": "chat",
    "default": True,
    "external": {"url": "http://10.0.0.5:8080/v1", "model": "m", "aliases": ["gpt-4o-mini"]},
}
GIVEN = {"OPENAI_API_KEY": SECRET}


def proxy(*pools: Mapping[str, Any], **stack: object) -> dict[str, Any]:
    """A stack that is a gateway alone."""
    gateway = {
        "container": "proxy_nginx",
        "port": 11500,
        "config_file": "nginx.conf",
        "allowed_networks": ["192.168.31.0/24"],
        "pools": list(pools or (EMBED, CHAT)),
    }
    return {"project": "proxy", "compose_file": "proxy.yaml", "gateway": gateway, **stack}


def rack(*pools: Mapping[str, Any], **settings: Any) -> tuple[Fleet, Host]:
    def change(data: Data) -> None:
        data["llm"]["stacks"] = [*data["llm"]["stacks"], proxy(*pools)]
        data["all"].update(settings)

    fleet = make_fleet(change)
    return fleet, fleet.host("192.168.31.10")


def state(fleet: Fleet, host: Host, key: str = SECRET) -> HostState:
    """The host after a deploy with this key; without one, nothing was brought yet."""
    found = converged(fleet, host)
    trust = {"/etc/ssl/certs/ca-certificates.crt": FileState("regular file", "644", "root", "root", "e" * 64)}
    keys = {KEY_FILE: file_state(File(KEY_FILE, key_line(key), "600"))} if key else {}
    return replace(found, files={**found.files, **trust, **keys})


def noted(fleet: Fleet, host: Host, found: HostState) -> HostState:
    """nginx has read the keys."""
    gateway = host.stacks[-1].gateway
    assert gateway
    return replace(found, contents={**found.contents, NOTE: f"{service_keys.digest(gateway, found)}\n"})


def left(fleet: Fleet, host: Host, found: HostState) -> dict[str, list[Action]]:
    """What a deploy would do, but for the keys of repositories, which only the publishers have."""
    return {name: actions for name, actions in steps(fleet, host, found).items() if name != "sources"}


def said(host: Host, found: HostState, environment: Mapping[str, str]) -> list[Finding]:
    return [one for one in findings(host, found, NOW, environment=environment) if one.check == "services"]


def test_a_gateway_may_stand_alone_in_its_stack() -> None:
    fleet, host = rack()
    gateway = host.stacks[-1].gateway
    assert gateway
    embed, chat = backends(fleet, gateway)
    assert [member.name for member in (*embed.members, *chat.members)] == ["embed@api.openai.com", "chat@10.0.0.5"]
    assert (embed.aliases, chat.aliases) == ((), ("gpt-4o-mini",))
    volumes = yaml.safe_load(compose_file(host, host.stacks[-1], uuids(converged(fleet, host))))["services"]["nginx"][
        "volumes"
    ]
    assert volumes[2:] == [
        "/etc/stoker/services/proxy_nginx:/etc/nginx/stoker-keys:ro",
        "/etc/ssl/certs:/etc/nginx/stoker-trust:ro",
    ]
    assert not left(fleet, host, noted(fleet, host, state(fleet, host)))


def test_without_keys_and_https_the_container_sees_nothing_more() -> None:
    fleet, host = rack(CHAT)
    rendered = compose_file(host, host.stacks[-1], uuids(converged(fleet, host)))
    assert "/etc/stoker" not in rendered
    assert "/etc/ssl" not in rendered
    assert not left(fleet, host, converged(fleet, host))


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        (proxy({**EMBED, "model": "bge-m3"}), "of this fleet serve this model, and the pool is external"),
        ({"project": "p", "compose_file": "p.yaml"}, "a stack needs instances or a gateway"),
    ],
)
def test_what_cannot_be(stack: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make_fleet(lambda data: data["llm"].update(stacks=[*data["llm"]["stacks"], stack]))


def test_an_alias_of_another_pool_is_taken() -> None:
    def change(data: Data) -> None:
        data["all"]["models"]["qwen2.5-14b"]["aliases"] = ["gpt-4o-mini"]
        pools = data["llm"]["stacks"][0]["gateway"]["pools"]
        data["llm"]["stacks"][0]["gateway"]["pools"] = [*pools, {**CHAT, "default": False}]

    with pytest.raises(SpecError, match="gpt-4o-mini is an alias of"):
        make_fleet(change)


def test_a_key_that_nobody_has_is_a_refusal_and_one_that_the_host_has_is_none() -> None:
    fleet, host = rack()
    (refusal,) = said(host, state(fleet, host, key=""), {})
    assert (refusal.severity, refusal.anchor) == ("refuse", "service-key")
    assert "no OPENAI_API_KEY" in refusal.reason
    assert not said(host, state(fleet, host, key=""), GIVEN)
    assert not said(host, state(fleet, host), {})
    (refusal,) = said(host, state(fleet, host), {"OPENAI_API_KEY": f"{SECRET}\n"})
    assert "holds something that is no key" in refusal.reason
    assert SECRET not in str(refusal)


def test_a_proxy_is_not_used_and_that_is_said() -> None:
    fleet, host = rack(proxy={"https": "http://proxy.lan:3128"})
    (note, _) = said(host, state(fleet, host), {})
    assert (note.severity, "directly and not through" in note.reason) == ("note", True)


def written(action: Action) -> dict[str, tuple[str, int]]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(action.stdin or ""))) as archive:
        return {entry.name: (archive.extractfile(entry).read().decode(), entry.mode) for entry in archive}  # type: ignore[union-attr]


def test_the_secret_goes_into_a_private_file_and_nowhere_else() -> None:
    fleet, host = rack()
    (action,) = service_keys.actions(host, state(fleet, host, key=""), GIVEN)
    assert written(action) == {"proxy_nginx/embed.conf": (key_line(SECRET), 0o600)}
    assert SECRET not in f"{action} {action.script}"
    assert f"{KEY_FILE}" in action.script
    assert not service_keys.actions(host, state(fleet, host), GIVEN), "it is there"
    assert not service_keys.actions(host, state(fleet, host), {}), "and stays without the variable"
    assert service_keys.actions(host, state(fleet, host, key="sk-old"), GIVEN), "another one is brought"


def test_a_key_whose_service_is_gone_is_removed() -> None:
    fleet, host = rack(CHAT)
    (action,) = service_keys.actions(host, state(fleet, host), {})
    assert action.script == f"rm -f {KEY_FILE}"


def test_nginx_reads_a_key_that_was_changed_and_authorities_that_were() -> None:
    fleet, host = rack()
    before = noted(fleet, host, state(fleet, host))
    assert not left(fleet, host, before)
    trust = FileState("regular file", "644", "root", "root", "f" * 64)
    for changed in (
        state(fleet, host, key="sk-new").files,
        {**before.files, "/etc/ssl/certs/ca-certificates.crt": trust},
    ):
        (action,) = steps(fleet, host, replace(before, files=changed))["gateway"]
        assert str(action).endswith("and the keys of services")
        assert f">{NOTE}" in action.script
    asked = questions(fleet, host)
    assert NOTE in asked.contents
    assert {KEY_FILE, "/etc/ssl/certs/ca-certificates.crt"} <= set(asked.files)
    assert KEY_FILE not in asked.contents


def test_smoke_sends_one_request_to_each_service() -> None:
    fleet, host = rack()
    entrance = next(one for one in entrances(fleet) if one.gateway.container == "proxy_nginx")
    found = [check.name for check in checks(fleet, entrance, HostWitness(host, None), 5)]
    assert found == [
        "/health",
        "/v1/models",
        "/v1/embeddings text-embedding by api.openai.com",
        "/v1/chat/completions small by 10.0.0.5",
    ]


def test_endpoints_say_that_it_is_elsewhere() -> None:
    fleet, _ = rack()
    found = find(fleet, gateway="proxy_nginx")
    embed = next(one for one in found.endpoints if one.model == "text-embedding")
    assert (embed.base_url, embed.dimensions, embed.foreign) == ("http://192.168.31.10:11500/v1", 1536, True)
    assert "text-embedding is answered by api.openai.com: what is sent there leaves this fleet." in found.notes


def test_it_is_no_member_to_drain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fleet, _ = rack()
    monkeypatch.setattr(drain, "read", lambda *_: type("Read", (), {"fleet": fleet, "inventory": None}))
    assert drain.drain(None, (), ["embed@api.openai.com"]) == drain.NOT_STARTED  # type: ignore[arg-type]
    assert "is no instance and cannot be drained" in capsys.readouterr().err
    assert not [task for task in drain.tasks(fleet, ["vllm_qwen_gpu2"]) if task.gateway.container == "proxy_nginx"]


def bare_rack() -> tuple[Fleet, Host]:
    """The second host has no card and a gateway alone."""

    def change(data: Data) -> None:
        del data["embedding"]["gpus"]
        data["embedding"]["stacks"] = [proxy(CHAT)]

    fleet = make_fleet(change)
    return fleet, fleet.host("192.168.31.65")


def test_a_host_without_cards_gets_nothing_of_nvidia() -> None:
    fleet, host = bare_rack()
    found = replace(bare(host), gpu_error="nvidia-smi: command not found", driver="", packages={}, units={})
    assert not [one for one in findings(host, found, NOW) if one.severity == "refuse"]
    actions = [str(action) for chapter in steps(fleet, host, found).values() for action in chapter]
    assert actions
    assert not [words for words in actions if "nvidia" in words.lower() or "driver" in words or "GPU" in words]


def test_instances_need_cards() -> None:
    with pytest.raises(SpecError, match="add 'gpus'"):
        make_fleet(lambda data: data["embedding"].pop("gpus"))

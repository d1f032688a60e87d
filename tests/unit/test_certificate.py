"""The certificate of a gateway: looked at before a deploy and by the doctor, seen by nginx, and read anew when it was renewed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import yaml
from support.certificates import certificate
from support.fleet import Data, make_fleet
from support.states import NOW, converged, steps

from stoker.facts.state import FileState, HostState
from stoker.plan.finding import Finding
from stoker.plan.preflight import findings
from stoker.render.compose import compose_file
from stoker.spec.fleet import Fleet, Host
from stoker.spec.problems import SpecError
from stoker.steps.gateway import probe
from stoker.steps.questions import questions
from stoker.steps.stack import uuids

CERTIFICATE, KEY = "/etc/stoker/tls/fullchain.pem", "/etc/stoker/tls/privkey.pem"
RECORD = "/var/lib/stoker/certificate-vllm_nginx"
DAY = 86400


def with_tls(data: Data) -> None:
    data["llm"]["stacks"][0]["gateway"]["tls"] = {"port": 11443, "certificate": CERTIFICATE, "key": KEY}


def rack() -> tuple[Fleet, Host]:
    fleet = make_fleet(with_tls)
    return fleet, fleet.host("192.168.31.10")


def state(begins: float = -1, days: int = 60, key_mode: str = "600", text: str | None = None) -> HostState:
    """The host after a deploy; ``begins`` and ``days`` are the certificate's, counted from now."""
    fleet, host = rack()
    found = converged(fleet, host)
    public, _ = certificate(datetime.fromtimestamp(NOW + begins * DAY, UTC), days)
    files = {
        CERTIFICATE: FileState("regular file", "644", "root", "root", "c" * 64),
        KEY: FileState("regular file", key_mode, "root", "root", "d" * 64),
    }
    contents = {CERTIFICATE: public if text is None else text, RECORD: "c" * 64 + "\n"}
    return replace(found, files={**found.files, **files}, contents={**found.contents, **contents})


def said(found: HostState) -> list[Finding]:
    return [one for one in findings(rack()[1], found, NOW) if one.check == "certificate"]


@pytest.mark.parametrize(
    ("found", "severity", "reason"),
    [
        (state(), "note", "ends on 20"),
        (state(days=14), "warn", "ends in 13 days"),
        (state(days=1), "warn", "ended 0 days ago"),
        (state(begins=-13, days=10), "warn", "ended 3 days ago"),
        (state(begins=1), "warn", "is valid from 20"),
        (state(text="no certificate"), "refuse", "is no certificate in PEM"),
        (state(text=""), "refuse", "is no certificate in PEM"),
    ],
)
def test_what_is_said_of_it(found: HostState, severity: str, reason: str) -> None:
    (only,) = said(found)
    assert (only.severity, only.anchor) == (severity, "certificate")
    assert reason in only.reason


def test_a_chain_ends_with_the_first_of_its_certificates() -> None:
    long = state().contents[CERTIFICATE]
    (only,) = said(state(text=long + state(days=8).contents[CERTIFICATE]))
    assert "ends in 7 days" in only.reason


def test_a_key_that_others_can_read() -> None:
    found = said(state(key_mode="644"))
    assert [one.severity for one in found] == ["warn", "note"]
    assert found[0].remedy == f"chmod 600 {KEY}"


@pytest.mark.parametrize("missing", [(CERTIFICATE,), (KEY,), (CERTIFICATE, KEY)])
def test_files_that_are_not_there(missing: tuple[str, ...]) -> None:
    found = state()
    (only,) = said(replace(found, files={path: one for path, one in found.files.items() if path not in missing}))
    assert only.severity == "refuse"
    assert all((path in only.reason) == (path in missing) for path in (CERTIFICATE, KEY))


def test_the_private_key_never_leaves_the_host() -> None:
    fleet, host = rack()
    asked = questions(fleet, host)
    assert KEY in asked.files
    assert KEY not in asked.contents
    assert {CERTIFICATE, RECORD} <= set(asked.contents)


def test_nginx_sees_the_directory_and_the_port_is_published() -> None:
    _, host = rack()
    (stack,) = host.stacks
    service = yaml.safe_load(compose_file(host, stack, uuids(state())))["services"]["nginx"]
    assert service["ports"] == ["11434:11434", "11443:11443"]
    assert "/etc/stoker/tls:/etc/nginx/stoker-tls:ro" in service["volumes"]


def test_nginx_judges_the_configuration_with_the_certificate() -> None:
    fleet, host = rack()
    found = state()
    files = {path: one for path, one in found.files.items() if not path.endswith("/router.js")}
    (action,) = steps(fleet, host, replace(found, files=files))["files"]
    assert "--volume /etc/stoker/tls:/etc/nginx/stoker-tls:ro" in action.script


def test_strict_leaves_no_plain_port_beside_https() -> None:
    def strict(data: Data) -> None:
        with_tls(data)
        data["all"]["strict"] = True
        data["llm"]["stacks"][0]["gateway"]["keys"] = data["embedding"]["stacks"][0]["gateway"]["keys"] = [
            {"name": "team-a", "sha256": "a" * 64}
        ]

    with pytest.raises(SpecError) as refused:
        make_fleet(strict)
    assert "11434 would stay one: keys would travel in the clear" in str(refused.value)

    def without(data: Data) -> None:
        strict(data)
        del data["llm"]["stacks"][0]["gateway"]["tls"]["port"]

    (stack,) = make_fleet(without).host("192.168.31.10").stacks
    assert stack.gateway is not None
    assert stack.gateway.plain_port is None
    asked = probe(stack)
    assert asked is not None
    assert asked.url == "https://127.0.0.1:11434/health"


def test_nothing_is_left_to_do() -> None:
    assert not {"files", "containers", "gateway"} & set(steps(*rack(), state()))


@pytest.mark.parametrize("noted", ["", "b" * 64 + "\n"], ids=["never", "the one before"])
def test_a_renewed_certificate_is_read(noted: str) -> None:
    found = state()
    found = replace(found, contents={**found.contents, RECORD: noted})
    (action,) = steps(*rack(), found)["gateway"]
    assert f"the certificate {CERTIFICATE}" in action.description
    assert "-s reload" in action.script
    assert action.script.endswith(f"&& echo {'c' * 64} >{RECORD}"), "noted only when nginx has followed"

"""Certificates by ACME: the placeholder before, the order, what a renewal does to the gateway, and what is said of it."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from support.certificates import certificate
from support.fleet import Data
from support.states import NOW, bare, converged, fleet_and_host, steps

from stoker.facts.state import FileState, HostState
from stoker.plan.finding import Finding
from stoker.plan.preflight import findings
from stoker.render.environment import TEMPLATES
from stoker.spec import tls as spec
from stoker.spec.fleet import Fleet, Host
from stoker.steps import acme
from stoker.steps.action import Action
from stoker.steps.questions import questions

DOMAIN = "llm.example.org"
DIRECTORY = "https://acme.example.org/dir"
LIVE = f"{spec.HOST_CERTIFICATES}/{DOMAIN}"
RECORD = "/var/lib/stoker/acme-vllm_nginx"


def described(**fields: str) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        data["llm"]["stacks"][0]["gateway"]["tls"] = {
            "domain": DOMAIN,
            "acme": {"directory": DIRECTORY, **fields},
        }

    return change


@functools.cache
def rack(**fields: str) -> tuple[Fleet, Host]:
    return fleet_and_host("llm", described(**fields))


@functools.cache
def served() -> HostState:
    return converged(*rack())


def issued(order: str = "", days: int = 60, self_signed: bool = False) -> HostState:
    """After a deploy that got a certificate; ``order`` is what it asked for."""
    _, host = rack()
    found = served()
    public, _ = certificate(datetime.fromtimestamp(NOW - 86400, UTC), days, issuer="" if self_signed else "Authority")
    digest = "c" * 64
    files = {
        f"{LIVE}/fullchain.pem": FileState("regular file", "644", "root", "root", digest),
        f"{LIVE}/privkey.pem": FileState("regular file", "600", "root", "root", "d" * 64),
    }
    (stack,) = host.stacks
    assert stack.gateway is not None
    ordered = acme._ordered(stack)
    assert ordered is not None
    contents = {
        f"{LIVE}/fullchain.pem": public,
        acme.note(stack.gateway): f"{digest}\n",
        RECORD: (order or acme._order(host, ordered)) + "\n",
    }
    return replace(
        found,
        files={**found.files, **files},
        contents={**found.contents, **contents},
        units={**found.units, acme.TIMER: "active enabled"},
    )


def not_issued() -> HostState:
    """The gateway runs with what stands for a certificate."""
    found = issued()
    return replace(found, contents={**found.contents, RECORD: ""})


def said(found: HostState) -> list[Finding]:
    return [one for one in findings(rack()[1], found, NOW) if one.check == "certificate"]


def test_a_bare_host_gets_certbot_a_placeholder_and_then_the_certificate() -> None:
    fleet, host = rack()
    found = steps(fleet, host, bare(host))
    assert "certbot, openssl" in str(found["base"][0])
    assert [str(action) for action in found["placeholders"]] == [
        f"make a certificate for {DOMAIN} that signs itself, until an authority issues one"
    ]
    assert [str(action) for action in found["certificates"]] == [
        f"get a certificate for {DOMAIN} from {DIRECTORY}",
        "start certbot's timer, now and at boot",
    ]
    names = list(found)
    assert names.index("placeholders") < names.index("files"), "nginx judges the files with it"
    assert names.index("certificates") > names.index("containers"), "the authority asks the gateway"
    assert said(bare(host)) == []


def test_nothing_is_left_to_do() -> None:
    assert steps(*rack(), issued()) == {}
    asked = questions(*rack())
    assert {RECORD, f"{LIVE}/fullchain.pem"} <= set(asked.contents)
    assert f"{LIVE}/privkey.pem" not in asked.contents
    assert acme.TIMER in asked.units


def test_other_gateways_know_nothing_of_it() -> None:
    fleet, host = fleet_and_host("embedding", described())
    assert not {"placeholders", "certificates"} & set(steps(fleet, host, bare(host)))
    assert "certbot" not in str(steps(fleet, host, bare(host))["base"][0])


def script(found: HostState, **fields: str) -> str:
    """What is run on the host to get the certificate."""
    (action,) = steps(*rack(**fields), found)["certificates"]
    ran: list[str] = []

    def shell(text: str, *, stdin: str | None = None) -> tuple[bool, list[str]]:
        ran.append(text)
        return True, []

    assert action.function is not None
    assert action.function(shell, lambda text: None) is None
    (text,) = ran
    return text


def test_the_order() -> None:
    found = not_issued()
    first = script(found, email="ops@example.org")
    assert f"--server {DIRECTORY} --email ops@example.org --webroot" in first
    assert f"--cert-name stoker-vllm_nginx --domain {DOMAIN}" in first
    assert "--keep-until-expiring" in first
    assert "--register-unsafely-without-email" in script(found)


def test_another_authority_means_another_certificate() -> None:
    assert "--force-renewal" in script(issued(), directory="https://other.example.org/dir")
    assert "--force-renewal" in script(issued(), email="ops@example.org")


def test_a_certificate_that_is_gone_is_taken_from_certbot_again() -> None:
    found = issued()
    gone = replace(found, files={path: one for path, one in found.files.items() if not path.endswith("/privkey.pem")})
    (placeholder,) = steps(*rack(), gone)["placeholders"]
    assert f"rm -f {RECORD}" in placeholder.script
    assert "--keep-until-expiring" in script(gone)


def test_a_failure_says_what_to_do_and_what_certbot_said() -> None:
    found = not_issued()
    (action,) = steps(*rack(), found)["certificates"]
    assert action.function is not None
    told = action.function(
        lambda text, stdin=None: (False, ["Type: unauthorized", "", "Detail: 404"]), lambda text: None
    )  # type: ignore[misc]
    assert told is not None
    assert f"no certificate was issued for {DOMAIN}, and the gateway keeps the one that it has" in told
    assert "docs/troubleshooting.md#acme" in told
    assert told.endswith("    Type: unauthorized\n    Detail: 404")


@pytest.mark.parametrize(
    ("found", "severity", "reason"),
    [
        (issued(), "note", "ends on 20"),
        (issued(days=10), "warn", "ends in 9 days"),
        (issued(self_signed=True), "warn", "no authority has issued a certificate for llm.example.org yet"),
    ],
)
def test_what_the_preflight_and_the_doctor_say(found: HostState, severity: str, reason: str) -> None:
    (only,) = said(found)
    assert (only.severity, reason in only.reason) == (severity, True)
    assert "certbot" in only.remedy or severity == "note"


def test_the_placeholder_is_a_certificate_for_the_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "HOST_CERTIFICATES", str(tmp_path))
    monkeypatch.setattr(acme, "HOST_STATE", str(tmp_path))
    (action,) = steps(*rack(), bare(rack()[1]))["placeholders"]
    run(action)
    made = x509.load_pem_x509_certificate((tmp_path / DOMAIN / "fullchain.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [DOMAIN]
    assert made.issuer == made.subject
    assert (tmp_path / DOMAIN / "privkey.pem").stat().st_mode & 0o777 == 0o600


def run(action: Action) -> None:
    subprocess.run(["sh", "-c", action.script], check=True, capture_output=True)


# --- what certbot runs after a renewal ---

DOCKER = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
inspect*) echo "$RUNNING";;
*" -t "*) exit "$JUDGED";;
esac
"""


class Host65:
    """A host with a gateway whose Docker only notes what it is asked."""

    def __init__(self, root: Path) -> None:
        self.root, self.shown, self.lineage = root, root / "tls", root / "live"
        for directory, text in ((self.shown, "old"), (self.lineage, "new")):
            directory.mkdir()
            for name in ("privkey.pem", "fullchain.pem"):
                (directory / name).write_text(f"{text} {name}")
        (root / "bin").mkdir()
        (root / "bin/docker").write_text(DOCKER)
        (root / "bin/docker").chmod(0o755)

    def renewed(self, running: str = "true", judged: int = 0) -> int:
        environment = {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "RENEWED_LINEAGE": str(self.lineage),
            "RUNNING": running,
            "JUDGED": str(judged),
            "LOG": str(self.root / "log"),
        }
        hook = ["sh", str(TEMPLATES / "renewed-certificate.sh"), str(self.shown)]
        line = [*hook, "bge_nginx", "/etc/nginx/stoker/nginx.conf", str(self.root / "note")]
        return subprocess.run(line, env=environment, capture_output=True, check=False).returncode

    @property
    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.shown.iterdir()}


def pair(text: str) -> dict[str, str]:
    return {name: f"{text} {name}" for name in ("privkey.pem", "fullchain.pem")}


@pytest.fixture
def host65(tmp_path: Path) -> Host65:
    return Host65(tmp_path)


def test_a_renewed_certificate_is_judged_and_read(host65: Host65) -> None:
    assert host65.renewed() == 0
    assert host65.files == pair("new")
    assert (host65.shown / "privkey.pem").stat().st_mode & 0o777 == 0o600
    log = (host65.root / "log").read_text().splitlines()
    assert [line.endswith(("-t -q", "-s reload")) for line in log] == [False, True, True]
    assert len((host65.root / "note").read_text().strip()) == 64


def test_one_that_nginx_does_not_take_leaves_the_old_one(host65: Host65) -> None:
    assert host65.renewed(judged=1) == 1
    assert host65.files == pair("old")
    assert not (host65.root / "note").exists()
    assert "reload" not in (host65.root / "log").read_text()


def test_a_gateway_that_does_not_run_reads_it_when_it_starts(host65: Host65) -> None:
    assert host65.renewed(running="false") == 0
    assert host65.files == pair("new")


def test_a_renewal_that_left_nothing_changes_nothing(host65: Host65) -> None:
    (host65.lineage / "fullchain.pem").unlink()
    assert host65.renewed() == 1
    assert host65.files == pair("old")

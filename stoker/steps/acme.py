"""Certificates that an authority issues by ACME: certbot fetches and renews them, the gateway shows the authority the proof.

Before the first one there is a placeholder that signs itself, because nginx does not start without a certificate.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from stoker.facts.paths import HOST_GATEWAYS, HOST_STATE
from stoker.facts.state import HostState
from stoker.render.environment import TEMPLATES
from stoker.render.gateway import ACME_WEBROOT, CONFIG_DIRECTORY
from stoker.spec.fleet import Host
from stoker.spec.gateway import Gateway
from stoker.spec.stack import Stack
from stoker.spec.tls import Acme, Tls
from stoker.steps.action import Action, File
from stoker.steps.packages import Package

#: Of the certbot package: looks twice a day for what is due.
TIMER = "certbot.timer"

#: An authority asks within seconds; certbot itself waits for it without a limit of its own.
_LIMIT_SECONDS = 300


def packages(host: Host) -> list[Package]:
    return [Package("certbot"), Package("openssl")] if _any(host) else []


def tools(host: Host) -> list[File]:
    if not _any(host):
        return []
    text = (TEMPLATES / "renewed-certificate.sh").read_text(encoding="utf-8")
    return [File(f"{host.settings.stack_root}/bin/renewed-certificate.sh", text, "755")]


def units(host: Host) -> list[str]:
    return [TIMER] if _any(host) else []


def contents(stack: Stack) -> list[str]:
    """What was asked for when a certificate was last issued."""
    ordered = _ordered(stack)
    return [_record(ordered.gateway)] if ordered else []


def placeholders(stack: Stack, state: HostState) -> list[Action]:
    """A certificate for nginx to start with, where there is none yet."""
    ordered = _ordered(stack)
    if ordered is None:
        return []
    tls = ordered.tls
    if _has_one(ordered, state):
        return []
    directory = shlex.quote(tls.directory)
    return [
        Action(
            f"make a certificate for {tls.domain} that signs itself, until an authority issues one",
            f"umask 077; mkdir -p {directory} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "
            f"-subj /CN={tls.domain} -addext subjectAltName=DNS:{tls.domain} -keyout {shlex.quote(tls.key_file)} "
            # What was issued before is gone, so it is asked for again.
            f"-out {shlex.quote(tls.certificate_file)} 2>&1 && rm -f {_record(ordered.gateway)}",
        )
    ]


def issue(host: Host, stack: Stack, state: HostState) -> list[Action]:
    """Ask the authority where what is described has not been issued; it asks the running gateway."""
    ordered = _ordered(stack)
    if ordered is None:
        return []
    found = []
    noted = state.contents.get(_record(ordered.gateway), "").strip()
    wanted = _order(host, ordered)
    if noted != wanted or not _has_one(ordered, state):
        # What certbot has is used again, but not for another authority, or another way to renew.
        again = "--force-renewal" if noted not in ("", wanted) else "--keep-until-expiring"
        script = _issue_script(host, ordered, wanted, again)
        found.append(
            Action(
                f"get a certificate for {ordered.domain} from {ordered.acme.directory}",
                function=lambda shell, say: _outcome(*shell(script), domain=ordered.domain),
            )
        )
    if state.units.get(TIMER) != "active enabled":
        found.append(Action("start certbot's timer, now and at boot", f"systemctl enable --now {TIMER}"))
    return found


@dataclass(frozen=True)
class _Ordered:
    """A gateway whose certificate is issued by an authority."""

    gateway: Gateway
    tls: Tls
    acme: Acme
    domain: str

    @property
    def name(self) -> str:
        """What certbot calls the certificate."""
        return f"stoker-{self.gateway.container}"

    @property
    def webroot(self) -> str:
        return f"{HOST_GATEWAYS}/{self.gateway.container}/{ACME_WEBROOT}"


def _ordered(stack: Stack) -> _Ordered | None:
    gateway = stack.gateway
    if gateway is None or gateway.tls is None or gateway.tls.acme is None or gateway.tls.domain is None:
        return None
    return _Ordered(gateway, gateway.tls, gateway.tls.acme, gateway.tls.domain)


def _has_one(ordered: _Ordered, state: HostState) -> bool:
    return ordered.tls.certificate_file in state.files and ordered.tls.key_file in state.files


def _any(host: Host) -> bool:
    return any(_ordered(stack) for stack in host.stacks)


def _record(gateway: Gateway) -> str:
    return f"{HOST_STATE}/acme-{gateway.container}"


def note(gateway: Gateway) -> str:
    """Where the digest of the certificate stands that nginx has read."""
    return f"{HOST_STATE}/certificate-{gateway.container}"


def _hook(host: Host, ordered: _Ordered) -> str:
    gateway = ordered.gateway
    program = f"{host.settings.stack_root}/bin/renewed-certificate.sh"
    configuration = f"{CONFIG_DIRECTORY}/{gateway.config_file}"
    return shlex.join([program, ordered.tls.directory, gateway.container, configuration, note(gateway)])


def _order(host: Host, ordered: _Ordered) -> str:
    """certbot's command line. It notes these options itself and uses them again when it renews."""
    email = ordered.acme.email
    words = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--server", ordered.acme.directory]
    words += ["--email", email] if email else ["--register-unsafely-without-email"]
    words += ["--webroot", "--webroot-path", ordered.webroot]
    words += ["--cert-name", ordered.name, "--domain", ordered.domain, "--renew-with-new-domains"]
    return shlex.join([*words, "--deploy-hook", _hook(host, ordered)])


def _issue_script(host: Host, ordered: _Ordered, order: str, again: str) -> str:
    live = f"/etc/letsencrypt/live/{ordered.name}"
    same = f"cmp -s {live}/fullchain.pem {shlex.quote(ordered.tls.certificate_file)}"
    return (
        f"mkdir -p {ordered.webroot} && timeout {_LIMIT_SECONDS} {order} {again} 2>&1 && "
        # certbot runs it only when there is a new one, and does not fail when it fails.
        f"{{ {same} || RENEWED_LINEAGE={live} {_hook(host, ordered)} 2>&1; }} && "
        f"printf '%s\\n' {shlex.quote(order)} >{_record(ordered.gateway)}"
    )


def _outcome(succeeded: bool, output: list[str], domain: str) -> str | None:
    if succeeded:
        return None
    said = "\n".join(f"    {line}" for line in output if line.strip())
    return (
        f"no certificate was issued for {domain}, and the gateway keeps the one that it has. The authority must reach "
        f"http://{domain}/.well-known/acme-challenge/ on port 80 of this host, from where it is. "
        f"More: docs/troubleshooting.md#acme. What certbot said:\n{said}"
    )

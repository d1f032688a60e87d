"""The running gateway has loaded the configuration that stands on the disk."""

from __future__ import annotations

import shlex

from stoker.facts.probe import HttpProbe
from stoker.facts.state import HostState
from stoker.render.compose import services
from stoker.render.gateway import CONFIG_DIRECTORY, CONFIG_HEADER, config_identity
from stoker.spec.fleet import Fleet, Host
from stoker.spec.gateway import Gateway
from stoker.spec.stack import Stack
from stoker.steps import acme
from stoker.steps.action import Action
from stoker.steps.stack import backends, container_reason, uuids


def probe(stack: Stack) -> HttpProbe | None:
    if stack.gateway is None:
        return None
    return HttpProbe(_answer(stack), stack.gateway.health_url, header=CONFIG_HEADER)


def actions(fleet: Fleet, host: Host, stack: Stack, state: HostState) -> list[Action]:
    """Reload when the running nginx answers with another configuration's identity, also when an earlier reload failed."""
    gateway = stack.gateway
    if gateway is None:
        return []
    service = next(service for service in services(host, stack, uuids(state)) if service.container == gateway.container)
    identity = config_identity(gateway, backends(fleet, gateway))
    if container_reason(service, state):
        return []  # a container that is about to be made or started reads the new files by itself
    renewed = _renewed(gateway, state)
    if state.answers.get(_answer(stack)) == identity and not renewed:
        return []
    configuration = f"{CONFIG_DIRECTORY}/{gateway.config_file}"
    execute = f"docker exec {shlex.quote(gateway.container)} nginx -c {configuration}"
    loaded = f"curl -q -s -k --noproxy '*' -m 2 -o /dev/null -D - {gateway.health_url} | tr -d '\\r' | grep -qix '{CONFIG_HEADER}: {identity}'"
    what = f"configuration {identity}" + (
        f" and the certificate {gateway.tls.certificate_file}" if gateway.tls and renewed else ""
    )
    note = f" && echo {renewed} >{shlex.quote(acme.note(gateway))}" if renewed else ""
    return [
        Action(
            f"reload {gateway.container} with {what}",
            f"{execute} -t -q && {execute} -s reload && {{ i=0; until {loaded}; do i=$((i+1)); test $i -lt 40 || "
            f"{{ echo 'nginx still runs its old configuration'; docker logs --tail 10 {shlex.quote(gateway.container)}; exit 1; }}; sleep 0.25; done; }}{note}",
        )
    ]


def contents(stack: Stack) -> list[str]:
    """The certificate, and what was noted when it was read last."""
    gateway = stack.gateway
    return [gateway.tls.certificate_file, acme.note(gateway), *acme.contents(stack)] if gateway and gateway.tls else []


def _renewed(gateway: Gateway, state: HostState) -> str:
    """The digest of a certificate that nginx has not been told to read; empty without one. nginx reads it at a reload only."""
    file = state.files.get(gateway.tls.certificate_file) if gateway.tls else None
    digest = file.digest if file else ""
    return digest if digest != state.contents.get(acme.note(gateway), "").strip() else ""


def _answer(stack: Stack) -> str:
    return f"gateway-{stack.project}"

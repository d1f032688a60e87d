"""The running gateway has loaded the configuration that stands on the disk."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from stoker.facts.probe import HttpProbe
from stoker.facts.state import HostState
from stoker.render.compose import services
from stoker.render.gateway import CONFIG_DIRECTORY, CONFIG_HEADER, config_identity
from stoker.spec.fleet import Fleet, Host
from stoker.spec.gateway import Gateway
from stoker.spec.stack import Stack
from stoker.steps import acme, service_keys
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
    unread = _unread(gateway, state)
    if state.answers.get(_answer(stack)) == identity and not unread:
        return []
    configuration = f"{CONFIG_DIRECTORY}/{gateway.config_file}"
    execute = f"docker exec {shlex.quote(gateway.container)} nginx -c {configuration}"
    loaded = f"curl -q -s -k --noproxy '*' -m 2 -o /dev/null -D - {gateway.health_url} | tr -d '\\r' | grep -qix '{CONFIG_HEADER}: {identity}'"
    what = " and ".join([f"configuration {identity}", *(one.words for one in unread)])
    note = "".join(f" && echo {one.digest} >{shlex.quote(one.note)}" for one in unread)
    return [
        Action(
            f"reload {gateway.container} with {what}",
            f"{execute} -t -q && {execute} -s reload && {{ i=0; until {loaded}; do i=$((i+1)); test $i -lt 40 || "
            f"{{ echo 'nginx still runs its old configuration'; docker logs --tail 10 {shlex.quote(gateway.container)}; exit 1; }}; sleep 0.25; done; }}{note}",
        )
    ]


def contents(stack: Stack) -> list[str]:
    """The certificate, and what was noted when it and the keys of services were read last."""
    gateway = stack.gateway
    if gateway is None:
        return []
    certificate = [gateway.tls.certificate_file, acme.note(gateway), *acme.contents(stack)] if gateway.tls else []
    return certificate + ([service_keys.note(gateway)] if service_keys.read_by(gateway) else [])


class _Unread(NamedTuple):
    """What nginx has not been told to read; it does so at a reload only."""

    words: str
    digest: str
    note: str  #: where the digest stands once it has


def _unread(gateway: Gateway, state: HostState) -> list[_Unread]:
    found = [_Unread("the keys of services", service_keys.digest(gateway, state), service_keys.note(gateway))]
    if gateway.tls and (file := state.files.get(gateway.tls.certificate_file)):
        words = f"the certificate {gateway.tls.certificate_file}"
        found.insert(0, _Unread(words, file.digest, acme.note(gateway)))
    return [one for one in found if one.digest and one.digest != state.contents.get(one.note, "").strip()]


def _answer(stack: Stack) -> str:
    return f"gateway-{stack.project}"

"""The keys of services elsewhere, which a gateway's container reads as lines of nginx's configuration.

The secrets come from the control machine's environment and go into private files below /etc/stoker (0700), by the standard input of a
script; what a host already has stays when the environment has nothing.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping

from stoker.facts.paths import HOST_SERVICE_KEYS, HOST_STATE
from stoker.facts.state import HostState
from stoker.render.gateway_external import HOST_TRUST_FILE, key_file, key_line
from stoker.spec.fleet import Host
from stoker.spec.gateway import Gateway
from stoker.steps.action import Action, File, write_files


def wanted(host: Host) -> dict[str, str]:
    """File on the host -> the environment variable whose secret belongs there."""
    return {
        f"{HOST_SERVICE_KEYS}/{stack.gateway.container}/{key_file(pool)}": external.key
        for stack in host.stacks
        if stack.gateway
        for pool, external in stack.gateway.externals
        if external.key
    }


def patterns() -> list[str]:
    """What may lie there from earlier descriptions, too."""
    return [f"{HOST_SERVICE_KEYS}/*/*.conf"]


def actions(host: Host, state: HostState, environment: Mapping[str, str]) -> list[Action]:
    files = wanted(host)
    found = []
    for path, variable in files.items():
        if environment.get(variable):
            file = File(path, key_line(environment[variable]), "600")
            if not file.is_on(state):
                script, stdin = write_files([file], HOST_SERVICE_KEYS)
                found.append(Action(f"write the key in {variable} to {path}", script, stdin))
    stale = [path for path in state.files if path.startswith(f"{HOST_SERVICE_KEYS}/") and path not in files]
    if stale:
        names = " ".join(map(shlex.quote, stale))
        found.append(Action(f"remove keys of services that are no longer described: {names}", f"rm -f {names}"))
    return found


def read_by(gateway: Gateway) -> list[str]:
    """Files besides its configuration that nginx reads when it is loaded: keys, and whom the host trusts."""
    keys = [f"{HOST_SERVICE_KEYS}/{gateway.container}/{key_file(pool)}" for pool, one in gateway.externals if one.key]
    return keys + ([HOST_TRUST_FILE] if any(one.secure for _, one in gateway.externals) else [])


def digest(gateway: Gateway, state: HostState) -> str:
    """One for all of these files as they are on the host; empty where there are none."""
    found = [f"{path} {state.files[path].digest}\n" for path in read_by(gateway) if path in state.files]
    return hashlib.sha256("".join(found).encode()).hexdigest() if found else ""


def note(gateway: Gateway) -> str:
    """Where that digest stands as nginx has read them."""
    return f"{HOST_STATE}/services-{gateway.container}"

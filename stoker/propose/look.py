"""Which cards hosts have, asked over SSH."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from stoker.facts.probe import Questions, script
from stoker.facts.state import HostState, parse


class CannotLook(Exception):
    """A host that does not say what it has: why, and what to do."""


def look(hosts: Mapping[str, Mapping[str, object]]) -> dict[str, HostState | CannotLook]:
    """Host -> what was found, all at once. ``hosts``: name -> its data as in the inventory (``ssh_user``, ``_sudo`` ...)."""
    from stoker.run.pyinfra_setup import set_up

    set_up()
    from pyinfra.api import Inventory

    from stoker.smoke.ssh import UNREACHED, AccessError, Shell, logins

    access = logins(Inventory(([(name, dict(data)) for name, data in hosts.items()], {})))
    command = f"sh -c {shlex.quote(script(Questions()))}"

    def ask(name: str) -> HostState | CannotLook:
        if name not in access:
            return CannotLook(f"{name}: {UNREACHED}")
        shell = Shell(access[name])
        try:
            state = parse(shell.run(command, sudo=True).splitlines())
        except AccessError as error:
            return CannotLook(f"{name}: {error.reason}; {error.remedy}")
        finally:
            shell.close()
        if state.gpus:
            return state
        return CannotLook(
            f"{name} shows no card: {state.gpu_error}; name them by --cards, for instance --cards '3 x V100-32GB'"
        )

    with ThreadPoolExecutor(len(hosts)) as pool:
        return dict(zip(hosts, pool.map(ask, hosts), strict=True))

"""Closed engine ports: who would be let in by mistake."""

from __future__ import annotations

import re

from stoker.plan.look import Look, Reason, Reasons

#: Docker names the bridge of a network by the first 12 digits of its id (moby, libnetwork's bridge driver).
_DOCKERS = re.compile(r"br-[0-9a-f]{12}")


def check(look: Look) -> Reasons:
    if look.host.settings.firewall == "off":
        return
    for name in look.state.bridges:
        if not _DOCKERS.fullmatch(name):
            yield Reason(
                f"the network interface {name} is named as Docker names its bridges and is none of them: with `firewall` "
                "its engines' ports would stay open to everyone behind that interface",
                f'rename {name} so that it does not begin with br-, or set firewall = "off" for this host',
                "firewall-bridge",
            )

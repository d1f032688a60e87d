"""Whether a host can open connections to where its downloads come from."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase, StringCommand

_SECONDS = 5


class Reach(FactBase[dict[str, str]]):
    """URL -> ``ok``, ``name`` (it does not resolve) or ``connection``. All are tried at once."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, addresses: dict[str, tuple[str, int]]) -> StringCommand:
        lines = []
        for url, (name, port) in addresses.items():
            target = shlex.quote(name)
            # bash opens the connection itself: a bare host has neither curl nor nc.
            lines.append(
                f"( if ! getent ahosts {target} >/dev/null; then r=name; "
                f"elif timeout {_SECONDS} bash -c ': </dev/tcp/{name}/{port}' 2>/dev/null; then r=ok; else r=connection; fi; "
                f"printf '%s\\t%s\\n' {shlex.quote(url)} $r ) &"
            )
        return StringCommand("\n".join([*lines, "wait", "exit 0"]))

    def process(self, output: Iterable[str]) -> dict[str, str]:
        return {line.split("\t", 1)[0]: line.split("\t", 1)[1] for line in output if "\t" in line}

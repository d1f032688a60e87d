"""Run ``stoker deploy --yes`` in this process and print, as JSON, how many SSH sessions it opened on each host.

Every command of pyinfra is a session of its own, about three round trips on the network. For benchmarks/second_deploy.py.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyinfra_cli  # noqa: F401  (first of all: it patches the standard library for gevent)
from paramiko import Transport

from stoker.inventory import group_data_directories
from stoker.run.runner import Options, deploy


def main() -> int:
    sessions: Counter[str] = Counter()
    open_channel = Transport.open_channel

    def counting(self: Transport, kind: str, *arguments: Any, **keywords: Any) -> Any:
        sessions[self.getpeername()[0]] += 1
        return open_channel(self, kind, *arguments, **keywords)

    Transport.open_channel = counting  # type: ignore[method-assign]
    status = deploy(Options(inventory=Path("inventory.py"), overlays=group_data_directories(), yes=True))
    print(json.dumps(dict(sorted(sessions.items()))))
    return status


if __name__ == "__main__":
    sys.exit(main())

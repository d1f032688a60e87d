"""pyinfra against hosts that are written down. Everything of Stoker and pyinfra runs but the SSH connection.

A folder holds for each host HOST/probe.txt, what the probe prints there, or HOST/unreachable.txt with the reason why it cannot be
connected to. Every command is noted in HOST/commands.txt, as one JSON text a line. A command that contains the text of HOST/turns-on.txt
makes HOST/after.txt what the probe prints from then on; one that contains the text of HOST/fails-on.txt fails.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def replace_ssh(folder: Path) -> None:
    from pyinfra.api.exceptions import ConnectError
    from pyinfra.connectors.ssh import SSHConnector
    from pyinfra.connectors.util import CommandOutput, OutputLine

    def connect(self: Any) -> None:
        reason = folder / self.host.name / "unreachable.txt"
        if reason.exists():
            raise ConnectError(reason.read_text())

    def run_shell_command(self: Any, command: Any, *_: Any, **arguments: Any) -> tuple[bool, Any]:
        host = folder / self.host.name
        text = command if isinstance(command, str) else command.get_raw_value()
        with (host / "commands.txt").open("a") as journal:
            journal.write(json.dumps(text) + "\n")
        ok, lines = _answer(host, text)
        return ok, CommandOutput([OutputLine("stdout", line) for line in lines])

    connector: Any = SSHConnector
    connector.connect = connect
    connector.disconnect = lambda self: None
    connector.run_shell_command = run_shell_command


def _answer(host: Path, command: str) -> tuple[bool, list[str]]:
    if "@@stoker os" in command:
        return True, (host / "probe.txt").read_text().splitlines()
    if "getent ahosts" in command:  # every mirror can be reached
        urls = [line.rpartition(" $r")[0].rpartition(" ")[2] for line in command.splitlines() if " $r ) &" in line]
        return True, [f"{url}\tok" for url in urls]
    if "echo lost" in command:  # a job is over when it is first looked at
        return True, ["job:0"]
    if _contains(host / "fails-on.txt", command):
        return False, ["it failed"]
    if _contains(host / "turns-on.txt", command):
        (host / "after.txt").replace(host / "probe.txt")
    return True, []


def _contains(file: Path, command: str) -> bool:
    return file.exists() and file.read_text() in command


def run(folder: Path) -> None:
    """The program that sys.argv names, in a process of its own (support/forked.py)."""
    from rich.console import Console

    import stoker.run.show

    replace_ssh(folder)
    # Made when it was imported, before this process had its own stderr.
    stoker.run.show.console = Console(stderr=True, highlight=False, soft_wrap=True, width=250)
    if sys.argv[0] == "stoker":
        from stoker.__main__ import main as stoker_main

        stoker_main()
    else:
        from pyinfra_cli.main import main as pyinfra_main

        pyinfra_main()

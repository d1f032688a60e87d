"""Commands as root on the hosts of a fleet, over connections that are kept, and made anew when they are lost."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from stoker.ready.wait import LOOK_SECONDS, ConnectionLost, RunResult
from stoker.smoke.ssh import COMMAND_SECONDS, REACH_IT, UNREACHED, AccessError, Login, Shell
from stoker.spec.fleet import Host


class Contact:
    """One connection for each host, made at its first command."""

    def __init__(self, access: Mapping[str, Login]) -> None:
        self._access = access
        self._shells: dict[str, Shell] = {}

    def run(self, host: Host, script: str, seconds: float = COMMAND_SECONDS) -> str:
        """Standard output of a POSIX sh script. Raises AccessError when it fails, says nothing for ``seconds``, or the host is lost;
        the next command connects again."""
        login = self._access.get(host.name)
        if login is None:
            raise AccessError(f"{host.name}: {UNREACHED}", REACH_IT)
        shell = self._shells.setdefault(host.name, Shell(login))
        try:
            return shell.run(f"sh -c {shlex.quote(script)}", sudo=True, seconds=seconds)
        except AccessError:
            self._shells.pop(host.name, None)
            shell.close()
            raise

    def executing(self, host: Host) -> Callable[[str], RunResult]:
        """What `wait_ready` looks at the host with."""

        def execute(script: str) -> RunResult:
            try:
                return RunResult(0, self.run(host, script, LOOK_SECONDS))
            except AccessError as error:
                raise ConnectionLost(error.reason) from error

        return execute

    def close(self) -> None:
        for shell in self._shells.values():
            shell.close()

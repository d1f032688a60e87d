"""Requests from inside a container on a host, whatever programs it has: the host's curl in the container's network, with its names."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from stoker.smoke import curl
from stoker.smoke.check import CheckFailed
from stoker.smoke.ssh import AccessError, Shell

#: Exit codes of the script where curl (1 to 99) was not run.
_NO_CONTAINER, _NOT_RUNNING = 120, 121

#: Runs in a mount namespace that ends with it, where what Docker made for the container's names is laid over the host's. Docker's
#: own DNS server answers in the container's network namespace. One line without single quotes, because a person sees it quoted.
_SCRIPT = "; ".join(
    [
        f'found=$(docker container inspect -f "{{{{.State.Pid}}}} :{{{{.ResolvConfPath}}}} :{{{{.HostsPath}}}}" -- "$0") || exit {_NO_CONTAINER}',
        'set -- $found "$@"',
        f'[ "$1" != 0 ] || exit {_NOT_RUNNING}',
        '[ ! -s "${2#:}" ] || mount --bind "${2#:}" /etc/resolv.conf',
        '[ ! -s "${3#:}" ] || mount --bind "${3#:}" /etc/hosts',
        "pid=$1",
        "shift 3",
        'exec nsenter --net="/proc/$pid/ns/net" "$@"',
    ]
)


@dataclass(frozen=True)
class Container:
    """A container by its name on a host."""

    name: str
    host: str
    shell: Shell

    def run(self, request: curl.Request) -> curl.Answer:
        """Run curl in there. Raises CheckFailed where it cannot be run at all."""
        try:
            code, output, errors = self.shell.outcome(
                self._command(request), request.seconds + 5, curl.header(request), sudo=True
            )
        except AccessError as error:
            raise CheckFailed(f"{self.host} can be asked", error.reason, error.remedy) from error
        if code in (_NO_CONTAINER, _NOT_RUNNING):
            found = errors.strip() if code == _NO_CONTAINER else "it does not run"
            raise CheckFailed(
                f"a running container {self.name} on {self.host}", found, "see which there are: docker ps -a"
            )
        if not output:
            raise CheckFailed(
                f"curl runs inside {self.name}",
                errors.strip(),
                "the host needs curl, nsenter and unshare, and root: _sudo in the inventory for another user",
            )
        return curl.parse(output, errors.strip())

    def printed(self, request: curl.Request) -> str:
        """The line to paste into a shell here."""
        return curl.with_key(request, self.shell.line(self._command(request), sudo=True))

    def _command(self, request: curl.Request) -> str:
        words = curl.words(request, ["-d", curl.body_text(request)])
        return shlex.join(["unshare", "--mount", "sh", "-ec", _SCRIPT, self.name, *words])

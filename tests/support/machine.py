"""A machine of the lab, looked at and meddled with from outside: not over SSH, so that a test can count who comes that way."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

import pytest

from lab.machines.config import CONTAINER_PREFIX
from lab.machines.daemon import SOCKET
from support.commands import ROOT, Done, run

#: Everything that Stoker may write on a host, without the engines' own caches and GPU locks' access times.
WRITTEN = (
    "/opt/stoker",
    "/etc/docker",
    "/etc/apt",
    "/etc/stoker",
    "/var/lib/stoker",
    "/var/lib/dpkg/status",
    "/data/projects",
    "/run/stoker-jobs",
)

_LISTING = """
find {paths} -path /var/lib/stoker/cache -prune -o -printf '%y %m %u %T@ %p\\n' 2>/dev/null | sort -k5
find {paths} -path /var/lib/stoker/cache -prune -o -type f -print0 2>/dev/null | sort -z | xargs -0r sha256sum
"""


@dataclass(frozen=True)
class Container:
    """One start of a container: who it is and since when it runs."""

    id: str
    started: str
    status: str


@dataclass(frozen=True)
class Machine:
    """A machine by its name in lab.toml."""

    name: str
    address: str

    def docker_exec(self, script: str, seconds: float = 30) -> Done:
        argv = ["docker", "-H", f"unix://{SOCKET}", "exec", f"{CONTAINER_PREFIX}{self.name}", "sh", "-c", script]
        return run(*argv, seconds=seconds)

    @property
    def is_off(self) -> bool:
        form = ["inspect", "--format", "{{.State.Status}}", f"{CONTAINER_PREFIX}{self.name}"]
        return run("docker", "-H", f"unix://{SOCKET}", *form).out.strip() == "exited"

    def sh(self, script: str, seconds: float = 30) -> str:
        """Run a script as root; returns what it printed. The test fails when the script does."""
        done = self.docker_exec(script, seconds)
        if done.code:
            pytest.fail(f"on {self.name}: {done}")
        return done.out

    def holds(self, script: str) -> bool:
        """Whether the script succeeds."""
        return self.docker_exec(script).code == 0

    def containers(self) -> dict[str, Container]:
        """Every container of the host by name."""
        form = '{"name":{{json .Name}},"id":{{json .Id}},"started":{{json .State.StartedAt}},"status":{{json .State.Status}}}'
        lines = self.sh(f"docker ps -aq | xargs -r docker inspect -f {shlex.quote(form)}").splitlines()
        rows = [json.loads(line) for line in lines]
        return {row["name"].lstrip("/"): Container(row["id"], row["started"], row["status"]) for row in rows}

    def written(self) -> dict[str, str]:
        """Path -> kind, mode, owner, time of change and content's checksum of everything that Stoker may write."""
        rows = self.docker_exec(_LISTING.format(paths=" ".join(WRITTEN))).out.splitlines()
        found: dict[str, str] = {}
        for row in rows:
            if row[64:66] == "  ":
                found[row[66:]] += f" {row[:64]}"
            else:
                about, path = row.split(" /", 1)
                found[f"/{path}"] = about
        return found

    def contacts(self) -> int:
        """How many connections of the controller sshd has noted, those that ended before the login included."""
        return int(
            self.sh(
                "journalctl -u ssh -o cat --no-pager | grep 192.168.31.2 | grep -c -e '^Accepted' -e preauth || true"
            )
        )

    def read(self, path: str) -> str:
        return self.sh(f"cat {shlex.quote(path)}")

    def logs(self, container: str) -> str:
        return self.sh(f"docker logs --timestamps {shlex.quote(container)} 2>&1")

    def fault(self, target: str, fault: str) -> None:
        """Make a simulated part fail, or ``clear``."""
        done = run(str(ROOT / "lab/fault"), self.name, target, fault)
        assert done.code == 0, done

    def set_load_seconds(self, seconds: float) -> None:
        """How long an engine's simulated load takes on this host; clears every fault."""
        self.sh(f"printf '%s' '{{\"load_seconds\": {seconds}}}' >/etc/lab-gpu/engine.json")


GPU10 = Machine("gpu10", "192.168.31.10")
GPU65 = Machine("gpu65", "192.168.31.65")
#: Started by `lab/up --with gpu40` only.
GPU40 = Machine("gpu40", "192.168.31.40")
INTERNET = Machine("internet", "192.168.31.1")
HOSTS = (GPU10, GPU65)

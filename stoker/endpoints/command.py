"""``stoker endpoints``: the settings of the applications that use a fleet, and whether they work where they will be used."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from stoker.description import CannotStart, Description, read
from stoker.endpoints.check import checks
from stoker.endpoints.endpoint import Endpoints, NoEndpoints, find
from stoker.endpoints.formats import OURS, Format, text
from stoker.endpoints.inside import Container
from stoker.smoke.plan import Plan
from stoker.smoke.report import show
from stoker.smoke.run import run
from stoker.smoke.ssh import Shell, logins

DONE, FAILED, NOT_STARTED = 0, 1, 3


@dataclass(frozen=True)
class Options:
    """What the person asked for."""

    form: Format = "env"
    containers: bool = False
    gateway: str = ""
    #: A file that gets the keys in clear.
    with_key: Path | None = None
    check: bool = False
    #: ``NAME@HOST``
    from_container: str = ""


def endpoints(inventory: Path, overlays: Sequence[str], options: Options) -> int:
    """Print or write the settings, or call them. 0: done; 1: a call failed; 3: nothing could be begun."""
    try:
        described = read(inventory, overlays)
        found = find(described.fleet, containers=options.containers, gateway=options.gateway)
        calling = options.check or bool(options.from_container)
        if options.with_key:
            _write(options.with_key, text(found, options.form, clear=True), found)
        elif not calling:
            print(text(found, options.form), end="")
        return _check(found, _container(described, found, options.from_container)) if calling else DONE
    except (*CannotStart, NoEndpoints) as error:
        print(error, file=sys.stderr)
        return NOT_STARTED


def _check(found: Endpoints, container: Container | None) -> int:
    if container is None and shutil.which("curl") is None:
        raise NoEndpoints("The calls are made by curl, which is not installed here: apt-get install curl")
    try:
        report = run(Plan(tuple(checks(found, container)), {}))
    finally:
        if container:
            container.shell.close()
    show(report, Console())
    return DONE if report.passed else FAILED


def _container(described: Description, found: Endpoints, name: str) -> Container | None:
    """Where to call from: the container that was named, or for those in a network the first engine there. Raises NoEndpoints."""
    if not name and not found.network:
        return None
    name = name or _neighbour(described, found)
    hosts = described.fleet.hosts
    if "@" not in name and len(hosts) == 1:
        name = f"{name}@{hosts[0].name}"
    container, _, host = name.partition("@")
    login = logins(described.inventory).get(host)
    if not container or login is None:
        names = ", ".join(host.name for host in hosts)
        raise NoEndpoints(f"{name} is no container: write NAME@HOST, with one of the hosts {names}.")
    return Container(container, host, Shell(login))


def _neighbour(described: Description, found: Endpoints) -> str:
    """``NAME@HOST`` of the first engine in the network."""
    (host,) = [host for host in described.fleet.hosts if host.name == found.host]
    names = [instance.name for stack, instance in host.instances() if f"{stack.project}_default" == found.network]
    if not names:
        raise NoEndpoints(
            f"No engine is in the network {found.network}: name a container there with --from-container NAME@HOST."
        )
    return f"{names[0]}@{host.name}"


def _is_ours(path: Path, content: str) -> bool:
    """Does it begin as what is to be written, with the line that says who wrote it? JSON has no place for such a line."""
    first = content.partition("\n")[0]
    try:
        return OURS in first and path.read_text(encoding="utf-8").startswith(first)
    except (OSError, ValueError):
        return False


def _write(path: Path, content: str, found: Endpoints) -> None:
    """Private from the first byte, and whole or not at all. Raises NoEndpoints."""
    wanted = [endpoint.key for endpoint in found.endpoints if endpoint.key]
    if not wanted:
        raise NoEndpoints("No key is needed, so there is none to write; leave --with-key out and redirect the output.")
    if missing := [key.variable for key in wanted if not key.value]:
        raise NoEndpoints(
            f"${missing[0]} holds none of the gateway's keys. The gateway keeps only their hashes: export the key "
            f"that was printed when it was made, or make one (`stoker key new NAME`) and deploy."
        )
    if path.exists() and not _is_ours(path, content):
        raise NoEndpoints(f"{path} exists, and `stoker endpoints` did not write it: remove it, or name another file.")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise NoEndpoints(f"{path} cannot be written: {error.strerror}") from None
    print(f"{path} holds the key in clear; only you can read it (mode 0600).", file=sys.stderr)

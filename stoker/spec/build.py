"""From what the inventory gives to a validated fleet, or to every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from stoker.spec import explain, salvage
from stoker.spec.checks import host_problems
from stoker.spec.checks_fleet import address_problems, firewall_problems, gateway_problems
from stoker.spec.fleet import Fleet, Host, HostDescription
from stoker.spec.problems import Problem, SpecError
from stoker.spec.settings import Settings


@dataclass(frozen=True)
class RawHost:
    """A host as the inventory gives it: data by name, and for each name the place it was written."""

    name: str
    data: Mapping[str, object]
    origin: Callable[[str], str]


#: Names that pyinfra itself reads from group_data (connectors and global arguments).
_PYINFRA_PREFIXES = ("ssh_", "_")


def build_fleet(raw_hosts: Iterable[RawHost], group_files: Mapping[str, bool] | None = None) -> Fleet:
    """Validate everything and report every problem at once.

    ``group_files`` maps each file of group_data to whether a group of that name exists.
    Raises SpecError.
    """
    problems = [
        Problem(
            where=path,
            field="file name",
            value="",
            reason="no group in the inventory has this name, so nothing reads the file",
            remedy="rename the file to a group of inventory.py (or all.py), or add the group",
        )
        for path, used in (group_files or {}).items()
        if not used
    ]
    hosts = []
    for raw in raw_hosts:
        host, found = _build_host(raw)
        problems += found
        if host is not None:
            hosts.append(host)
    fleet = Fleet(tuple(hosts))
    if not problems:
        origins = {raw.name: raw.origin for raw in raw_hosts}
        for host in hosts:
            problems += address_problems(fleet, host, origins[host.name])
            problems += gateway_problems(fleet, host, origins[host.name])
            problems += firewall_problems(fleet, host, origins[host.name])
    if problems:
        raise SpecError(problems)
    return fleet


def _build_host(raw: RawHost) -> tuple[Host | None, list[Problem]]:
    """The host and every problem found on it. A host with problems is of no use but for finding more of them."""
    known = set(Settings.model_fields) | set(HostDescription.model_fields)
    problems: list[Problem] = []
    settings_data: dict[str, object] = {}
    host_data: dict[str, object] = {}
    for name, value in raw.data.items():
        if name in Settings.model_fields:
            settings_data[name] = value
        elif name in HostDescription.model_fields:
            host_data[name] = tuple(value) if name == "stacks" and isinstance(value, list) else value
        elif not name.startswith(_PYINFRA_PREFIXES):
            problems.append(explain.unknown_name(raw.origin(name), name, value, known))
    misspelt = {explain.closest(problem.field, known) for problem in problems}
    unknown: frozenset[str] = frozenset()
    try:
        settings = Settings.model_validate(settings_data)
    except ValidationError as error:
        problems += explain.explain(error, lambda name: _settings_file(raw, name), settings_data)
        settings, unknown = salvage.settings(settings_data, error)
    description: HostDescription | None
    try:
        description = HostDescription.model_validate(host_data)
    except ValidationError as error:
        problems += [_of_host(raw, problem) for problem in explain.explain(error, raw.origin, host_data)]
        description = salvage.host_description(host_data, error)
    host = None
    if description is not None:
        host = Host(raw.name, description.address or raw.name, description.gpus, description.stacks, settings)
        problems += host_problems(host, raw.origin, unknown)
    # A name that is misspelt is missing too; saying so once is enough.
    return host, [problem for problem in problems if problem.field not in misspelt or problem.value]


def _of_host(raw: RawHost, problem: Problem) -> Problem:
    """Name the host where a whole part of its description is missing."""
    if problem.field not in HostDescription.model_fields or problem.value:
        return problem
    return replace(
        problem,
        reason=f"{raw.name} has none, and there is no default",
        remedy=f"add {problem.field!r}, or take {raw.name} out of the inventory",
    )


def _settings_file(raw: RawHost, name: str) -> str:
    """Where a setting stands, or belongs."""
    return raw.origin(name) if name in raw.data else "group_data/all.py"

"""Reads ``inventory.py`` and ``group_data/`` with pyinfra's own loader and hands them to :mod:`stoker.spec`.

pyinfra merges data without a schema and without a trace of where a value came from; this module finds the
trace again, so that an error can name the file.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from stoker import given
from stoker.spec.build import RawHost, build_fleet
from stoker.spec.fleet import Fleet
from stoker.spec.problems import Problem, SpecError

#: More directories with group data, separated by ``:``; each overrides the ones before it.
GROUP_DATA_VARIABLE = "STOKER_GROUP_DATA"


def group_data_directories(given: Sequence[str | Path] = ()) -> list[str]:
    """The overlays to use: those of the command line, or else of the environment."""
    if given:
        return [str(path) for path in given]
    return [path for path in os.environ.get(GROUP_DATA_VARIABLE, "").split(":") if path]


def load_inventory(path: Path, overlays: Sequence[str] = (), override_data: dict[str, Any] | None = None) -> Any:
    """pyinfra's Inventory of an inventory file. Raises SpecError where pyinfra would go on with nothing."""
    import pyinfra_cli  # noqa: F401  (first of all pyinfra imports: it patches the standard library for gevent)
    from pyinfra.api import State
    from pyinfra.context import ctx_state
    from pyinfra_cli.inventory import make_inventory

    if not path.is_file():
        raise SpecError(
            [
                Problem(
                    str(path),
                    "inventory",
                    "",
                    "there is no such file",
                    "name an inventory file, for instance inventory.py",
                )
            ]
        )
    missing = [overlay for overlay in overlays if not Path(overlay).is_dir()]
    if missing:
        raise SpecError(
            [
                Problem(overlay, "group data", "", "there is no such directory", "correct the name")
                for overlay in missing
            ]
        )
    if not ctx_state.isset():
        ctx_state.set(State())  # pyinfra notes there which file it executes
    given.problems()  # of an inventory that was read before
    try:
        inventory = make_inventory(
            str(path), cwd=str(Path.cwd()), override_data=override_data or {}, group_data_directories=list(overlays)
        )
    except Exception as error:  # whatever the person's Python raised
        raise SpecError([*given.problems(), _python_error(error, path)]) from error
    if wrong := given.problems():
        raise SpecError(wrong)
    if not len(inventory):
        raise SpecError(
            [Problem(str(path), "hosts", "", "the inventory holds no hosts", 'add a group: llm = ["192.168.31.10"]')]
        )
    return inventory


def load_fleet(path: Path, overlays: Sequence[str] = ()) -> Fleet:
    """The validated fleet of an inventory file. Raises SpecError with every problem found; contacts no host."""
    return fleet_of(load_inventory(path, overlays), path, overlays)


def fleet_of(inventory: Any, path: Path, overlays: Sequence[str] = ()) -> Fleet:
    """The validated fleet of an inventory that pyinfra has already loaded."""
    folders = data_folders(path, overlays)
    raw_hosts = [RawHost(host.name, host.data.dict(), partial(_origin, host, path, folders)) for host in inventory]
    # Beside another inventory, the groups of the one in this directory are nobody's mistake.
    own = (
        folders
        if path.parent.resolve() == Path.cwd()
        else [folder for folder in folders if folder != Path("group_data")]
    )
    files = {
        str(file): file.stem == "all" or bool(inventory.groups.get(file.stem))
        for folder in own
        for file in sorted(folder.glob("*.py"))
    }
    return build_fleet(raw_hosts, files)


def limited(inventory: Any, patterns: Sequence[str]) -> list[Any] | None:
    """pyinfra's hosts that ``--limit`` names: each pattern is a group or matches hosts. None: no pattern. Raises SpecError for one without a host."""
    if not patterns:
        return None
    chosen: dict[Any, None] = {}
    for pattern in patterns:
        hits = list(inventory.groups.get(pattern) or [host for host in inventory if fnmatch(host.name, pattern)])
        if not hits:
            raise SpecError(
                [
                    Problem(
                        "--limit",
                        "pattern",
                        repr(pattern),
                        "no host and no group has this name",
                        f"use one of {', '.join([*(host.name for host in inventory), *inventory.groups])}",
                    )
                ]
            )
        chosen.update(dict.fromkeys(hits))
    return list(chosen)


def data_folders(path: Path, overlays: Iterable[str]) -> list[Path]:
    """The group_data directories that pyinfra reads, in its order: later ones override."""
    folders = [Path("group_data")]
    if path.parent.resolve() != Path.cwd():
        folders.append(path.parent / "group_data")
    return [folder for folder in [*folders, *map(Path, overlays)] if folder.is_dir()]


def _origin(host: Any, path: Path, folders: Sequence[Path], name: str) -> str:
    """The file in which a name was last set for a host, in pyinfra's order of precedence."""
    if name in host.inventory.get_host_data(host.name):
        return f"{path} ({host.name})"
    for group in [*reversed(host.groups), "all"]:
        data = host.inventory.get_group_data(group) if group != "all" else host.inventory.get_data()
        if name in data:
            for folder in reversed(folders):
                file = folder / f"{group}.py"
                if file.is_file() and _mentions(file, name):
                    return str(file)
            return f"{path} (group {group})"
    if name == "address":  # one host's own
        return f"{path} ({host.name})"
    group_names = [group for group in host.groups if group not in ("all", path.stem)]
    return f"{folders[0] if folders else 'group_data'}/{group_names[0] if group_names else 'all'}.py"


def _mentions(file: Path, name: str) -> bool:
    return any(line.startswith(name) for line in file.read_text(encoding="utf-8").splitlines())


def _python_error(error: Exception, path: Path) -> Problem:
    """What Python says of a description, and the line of the person's own file where it says so."""
    cause = getattr(error, "exception", error)  # pyinfra wraps what a file raised
    place = str(path)
    for frame, line in traceback.walk_tb(cause.__traceback__):
        file = Path(frame.f_code.co_filename)
        if "group_data" in file.parts or file.name == path.name:
            place = f"{_relative(file)}:{line}"
    if isinstance(cause, SyntaxError) and cause.filename:
        place = f"{_relative(Path(cause.filename))}:{cause.lineno}"
    words = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    return Problem(place, "Python", "", f"{type(cause).__name__}: {words}", "correct the file; it is ordinary Python")


def _relative(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file

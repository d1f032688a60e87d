"""The parts of a description, typed, before they are files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from stoker.spec.base import Spec
from stoker.spec.build import RawHost, build_fleet
from stoker.spec.fleet import Fleet
from stoker.spec.settings import AnyModel, Versions
from stoker.spec.stack import GpuHardware, Stack


@dataclass(frozen=True)
class Group:
    """Hosts that are alike: a group of ``inventory.py`` and its file in ``group_data/``."""

    name: str
    #: The first line of its file.
    about: str
    #: Name in the inventory -> data for that host alone, for instance ``ssh_user``.
    hosts: Mapping[str, Mapping[str, object]]
    gpus: GpuHardware
    stacks: tuple[Stack, ...]


@dataclass(frozen=True)
class Draft:
    """A whole fleet."""

    groups: tuple[Group, ...]
    #: By the name under which they are served.
    models: Mapping[str, AnyModel]

    def fleet(self, versions: Versions) -> Fleet:
        """The same as `stoker check-description` would read it. Raises SpecError."""
        settings = {"versions": versions, "models": {name: plain(model) for name, model in self.models.items()}}
        return build_fleet(
            [
                RawHost(name, {**settings, **described, **data}, partial(_origin, group))
                for group in self.groups
                for described in [{"gpus": plain(group.gpus), "stacks": [plain(stack) for stack in group.stacks]}]
                for name, data in group.hosts.items()
            ]
        )


def plain(part: Spec) -> dict[str, Any]:
    """A part as the data that is written: without what is the default."""
    return part.model_dump(mode="json", exclude_defaults=True)


def _origin(group: Group, name: str) -> str:
    """Where a name would be written."""
    return f"group_data/{group.name if name in ('gpus', 'stacks') else 'all'}.py"


def named_apart(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The groups with numbers behind names that several have."""
    names = [group.name for group in groups]
    return tuple(
        replace(group, name=f"{group.name}_{names[:place].count(group.name) + 1}")
        if names.count(group.name) > 1
        else group
        for place, group in enumerate(groups)
    )

"""A draft as files, in the style of the project's own description."""

from __future__ import annotations

from typing import Any

from stoker.draft.draft import Draft, Group, plain
from stoker.draft.gateways import unique, word
from stoker.draft.literal import Spread, assignment
from stoker.draft.shipped import Shipped
from stoker.models.card import FOLDER, file_name
from stoker.spec.instance import Instance
from stoker.spec.stack import Stack

_INVENTORY = '''"""The machines, by what they do. A host may stand in several groups; group_data/ holds what each group means.

Anything after a host's address is data for that host alone:
    llm = [("192.168.31.10", {"ssh_user": "operator", "_sudo": True})]
"""
'''

#: Fields of an instance that its neighbours often share.
_SHARED = ("engine", "model", "arguments", "environment")


def files(draft: Draft, shipped: Shipped) -> dict[str, str]:
    """Path below the fleet's directory -> text."""
    found = {
        "inventory.py": _inventory(draft),
        "group_data/all.py": shipped.all_py(
            assignment("models", {name: plain(model) for name, model in draft.models.items()}, open_=True)
        ),
    }
    for group in draft.groups:
        found[f"group_data/{group.name}.py"] = _group(group)
    for model in draft.models.values():
        card = shipped.cards.of(model)
        if card is not None:
            found[f"group_data/{FOLDER}/{file_name(card)}"] = shipped.card_text(card)
    return found


def _inventory(draft: Draft) -> str:
    lines = [
        assignment(group.name, [(name, dict(data)) if data else name for name, data in group.hosts.items()])
        for group in draft.groups
    ]
    return "\n".join([_INVENTORY, *lines, ""])


def _group(group: Group) -> str:
    names = _names(group)
    parts = [f'"""{group.about}"""', assignment("gpus", plain(group.gpus))]
    parts += [assignment(name, shared, open_=True) for name, shared in names]
    stacks = [_stack(stack, names) for stack in group.stacks]
    return "\n\n".join([*parts, assignment("stacks", stacks, open_=True)]) + "\n"


def _stack(stack: Stack, names: list[tuple[str, dict[str, Any]]]) -> dict[Any, Any]:
    entry = plain(stack)
    entry["instances"] = [_instance(instance, names) for instance in stack.instances]
    return entry


def _instance(instance: Instance, names: list[tuple[str, dict[str, Any]]]) -> dict[Any, Any]:
    entry: dict[Any, Any] = plain(instance)
    shared = _shared(instance)
    name = next(name for name, one in names if one == shared)
    own = {key: value for key, value in entry.items() if key not in shared}
    return {**own, Spread("shared"): name}


def _names(group: Group) -> list[tuple[str, dict[str, Any]]]:
    """What instances have in common -> a name for it, by the model's first word."""
    found: list[tuple[str, dict[str, Any]]] = []
    for stack in group.stacks:
        for instance in stack.instances:
            shared = _shared(instance)
            if not any(one == shared for _, one in found):
                found.append((unique("_" + word(instance.model), {name for name, _ in found}), shared))
    return found


def _shared(instance: Instance) -> dict[str, Any]:
    return {key: value for key, value in plain(instance).items() if key in _SHARED}

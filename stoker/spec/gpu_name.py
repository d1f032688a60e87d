"""How a description names a card: by its index, by its UUID, or by its address on the PCI bus. Each in one form."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_FORMS = "an index (0), a UUID (`nvidia-smi -L` prints them, GPU- and 36 signs) or a bus address (3b:00.0)"


def bus_id(text: str) -> str:
    """A PCI address in one form, ``0000:3b:00.0``, as sysfs and lspci -D write it; empty when it is none.

    nvidia-smi prints eight digits of domain and capitals (00000000:3B:00.0), older ones four; people leave the domain out.
    """
    found = re.fullmatch(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.([0-7]))?", text.strip().lower())
    if not found:
        return ""
    domain, bus, device, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function or 0}"


def _uuid(text: str) -> str:
    """A card's UUID as nvidia-smi writes it; empty when it is none."""
    found = re.fullmatch(r"gpu-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", text.strip().lower())
    return f"GPU-{found.group(1)}" if found else ""


def _normalised(value: object) -> object:
    """An index, or the one form of a UUID or a bus address, so that two ways to write one name are equal."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError(f"a GPU has no such name; write {_FORMS}")
    if value.strip().isdigit():
        raise ValueError("an index is a number; write it without quotes")
    if value.strip().upper().startswith("MIG-"):
        raise ValueError("this is a part of a divided card (MIG), which Stoker does not hand out; name the whole card")
    name = _uuid(value) or bus_id(value)
    if not name:
        raise ValueError(f"this is neither the UUID nor the bus address of a GPU; write {_FORMS}")
    return name


#: An index in the order in which nvidia-smi lists the cards (PCI bus order), ``GPU-<36 signs>``, or ``0000:3b:00.0``.
GpuName = Annotated[int | str, BeforeValidator(_normalised)]


def label(name: GpuName) -> str:
    """A card's name in a sentence: ``GPU 0``, ``GPU-8f3c...``, ``GPU 0000:3b:00.0``."""
    return name if isinstance(name, str) and name.startswith("GPU-") else f"GPU {name}"

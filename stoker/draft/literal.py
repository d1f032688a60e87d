"""Python literals as the project's formatter leaves them: one line where it fits, else one entry a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

WIDTH = 120
_STEP = "    "


class Spread(str):
    """Key of a dictionary's entry ``**name``; its value is the name."""

    __slots__ = ()


def assignment(name: str, value: object, open_: bool = False) -> str:
    """``name = value``. ``open_``: one entry a line though it would fit."""
    return f"{name} = {_text(value, '', len(name) + 3, open_)}"


def _text(value: object, indent: str, before: int, open_: bool = False) -> str:
    """``before``: signs that stand on the line already, with its indentation. One sign is kept for the comma behind."""
    flat = _flat(value)
    if not isinstance(value, Mapping | list | tuple) or not value:
        return flat
    if not open_ and before + len(flat) + 1 <= WIDTH:
        return flat
    inner = indent + _STEP
    if isinstance(value, Mapping):
        body = [_entry(key, item, inner) for key, item in value.items()]
        return "{\n" + _lines(inner, body) + f"{indent}}}"
    left, right = "()" if isinstance(value, tuple) else "[]"
    return f"{left}\n" + _lines(inner, (_text(item, inner, len(inner)) for item in value)) + indent + right


def _entry(key: object, item: object, inner: str) -> str:
    if isinstance(key, Spread):
        return f"**{item}"
    start = f"{_flat(key)}: "
    return start + _text(item, inner, len(inner) + len(start))


def _lines(inner: str, body: Iterable[str]) -> str:
    return "".join(f"{inner}{line},\n" for line in body)


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = (
            f"**{item}" if isinstance(key, Spread) else f"{_flat(key)}: {_flat(item)}" for key, item in value.items()
        )
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(_flat, value))
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, str):
        return _quoted(value)
    return repr(value)


def _quoted(text: str) -> str:
    """In double quotes, unless it holds some and no single ones."""
    plain = repr(text)
    if plain.startswith("'") and '"' not in text:
        return '"' + plain[1:-1] + '"'
    return plain

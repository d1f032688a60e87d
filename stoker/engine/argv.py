"""The command-line arguments of engines whose parsers Stoker does not know in full: how they are written, and which are Stoker's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from stoker.spec import vllm
from stoker.spec.vllm import Argument, Finding

#: Where a server listens is Stoker's to say, whatever the engine.
LISTENS: Mapping[str, str] = {name: vllm.OURS[name] for name in ("host", "port")}
KEY_IS_SEEN = "it would show in the process list; close the port with `strict`, and let the gateway have the keys"


def plain_argv(arguments: Mapping[str, Argument]) -> tuple[str, ...]:
    """True is a bare flag; False and None leave it out; anything else is the value behind it."""
    return tuple(word for name, value in arguments.items() for word in _words(name, value))


def _words(name: str, value: Argument) -> tuple[str, ...]:
    if value is None or value is False:
        return ()
    if value is True:
        return (f"--{name}",)
    # With a dash in front the parser would take the value for an option.
    return (f"--{name}={value}",) if str(value).startswith("-") and not _is_number(value) else (f"--{name}", str(value))


def _is_number(value: Argument) -> bool:
    return isinstance(value, int | float)


def form_problems(arguments: Mapping[str, Argument], ours: Mapping[str, str], title: str) -> Iterator[Finding]:
    """Arguments that are written wrongly, or that ``ours`` names: argument -> what to do instead."""
    for name in arguments:
        plain = name.lstrip("-").replace("_", "-")
        if plain in ours:
            yield name, "Stoker sets this argument itself", ours[plain]
        elif plain != name:
            yield (
                name,
                f"arguments of {title} are written without dashes in front and with - between words",
                f"write {plain!r}",
            )


def count_problem(arguments: Mapping[str, Argument], name: str) -> Iterator[Finding]:
    """An argument that must be a whole number above 0 where it is given."""
    value = arguments.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        yield name, "it must be a whole number above 0", "write for instance 8192"


def share_of(name: str, default: float) -> Callable[[Mapping[str, Argument]], float]:
    """The share of a card that an argument sets; 0 for what is no number, which `share_problem` refuses."""

    def share(arguments: Mapping[str, Argument]) -> float:
        said = arguments.get(name, default)
        return float(said) if isinstance(said, int | float) and not isinstance(said, bool) else 0.0

    return share


def share_problem(arguments: Mapping[str, Argument], name: str) -> Iterator[Finding]:
    """A share of a card where it is given."""
    value = arguments.get(name)
    if value is not None and not (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1):
        yield name, "it is a share of the card's memory, above 0 and at most 1", "write 0.9 for 90 %"

"""An nginx configuration that was written by hand: upstreams, and which paths go to them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TOKENS = re.compile(
    r"""\s+|\#[^\n]*|"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|([{};])|((?:\$\{\w+\}|\\.|[^\s{};"'])+)""", re.DOTALL
)


@dataclass(frozen=True)
class Directive:
    """``name words... ;`` or ``name words... { children }``."""

    name: str
    words: tuple[str, ...]
    children: tuple[Directive, ...] = ()

    def all(self, name: str = "") -> Iterator[Directive]:
        """Every directive of this name below, in order; without a name every one."""
        for child in self.children:
            if name in ("", child.name):
                yield child
            yield from child.all(name)


@dataclass(frozen=True)
class Location:
    """A path and where it leads. ``target`` is the upstream or ``host:port``; empty where nothing is passed on."""

    path: str
    target: str


@dataclass(frozen=True)
class Nginx:
    """What matters for routing."""

    upstreams: dict[str, tuple[str, ...]]
    locations: tuple[Location, ...]
    tree: Directive
    text: str


def read(text: str) -> Nginx:
    tree = Directive("", (), tuple(_parse(text)))
    upstreams = {
        one.words[0]: tuple(server.words[0] for server in one.children if server.name == "server" and server.words)
        for one in tree.all("upstream")
        if one.words
    }
    return Nginx(upstreams, tuple(_locations(tree)), tree, text)


def _locations(tree: Directive) -> Iterator[Location]:
    for one in tree.all("location"):
        path = one.words[-1] if one.words else "/"
        passed = [
            target for directive in one.all("proxy_pass") if directive.words and (target := _target(directive.words[0]))
        ]
        for target in passed or [""]:
            yield Location(path, target)


def _target(address: str) -> str:
    """``http://qwen/`` -> ``qwen``; empty for a variable, which only nginx can resolve."""
    found = re.match(r"https?://([^/$]+)", address)
    return found[1] if found else ""


def _parse(text: str) -> list[Directive]:
    """Forgiving: whatever does not end in ``;`` or ``}`` is closed by the end of the text."""
    stack: list[list[Directive]] = [[]]
    heads: list[list[str]] = []
    words: list[str] = []
    for found in _TOKENS.finditer(text):
        double, single, sign, word = found.groups()
        if sign == "{":
            heads.append(words)
            stack.append([])
            words = []
        elif sign in (";", "}"):
            if words:
                stack[-1].append(_directive(words, ()))
                words = []
            if sign == "}" and heads:
                children = stack.pop()
                stack[-1].append(_directive(heads.pop(), children))
        elif word is not None:
            words.append(word)
        elif double is not None or single is not None:
            words.append(double if double is not None else single)
    while heads:
        children = stack.pop()
        stack[-1].append(_directive(heads.pop(), children))
    return stack[0]


def _directive(words: Sequence[str], children: Sequence[Directive]) -> Directive:
    name, *rest = words or [""]
    return Directive(name, tuple(rest), tuple(children))

"""``stoker key``: a key for a gateway's client, and the line of group_data that lets it in."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from stoker.keys.make import line_of, new_key
from stoker.spec.gateway_access import RESERVED_NAMES

BAD_INPUT = 3
_NAME = r"[a-z0-9][a-z0-9_-]{0,31}"
#: A key that people can try out is not kept safe by its hash.
_LEAST_SIGNS = 24

app = typer.Typer(no_args_is_help=True, help="Keys of the gateways' clients.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Who the key is for; the gateway's log shows it.")]


@app.command(epilog="Example: stoker key new team-a")
def new(name: Name) -> None:
    """Make a key: printed once and kept nowhere. The description gets its hash."""
    _check(name)
    key = new_key()
    print(f"The key of {name}, to be given to its user; it is shown only now:\n\n    {key}\n")
    _print_line(name, key)


@app.command("hash", epilog='Example: printf %s "$KEY" | stoker key hash team-a')
def hash_(name: Name) -> None:
    """The line for a key that exists, read from standard input."""
    _check(name)
    key = sys.stdin.read().strip()
    if not re.fullmatch(rf"[\x21-\x7e]{{{_LEAST_SIGNS},}}", key):
        _end(
            f"a key has at least {_LEAST_SIGNS} signs of ASCII without spaces, and is made by chance: "
            "its hash keeps no other one secret; `stoker key new` makes one"
        )
    _print_line(name, key)


def _print_line(name: str, key: str) -> None:
    print(f'A line for "keys" of the gateway in group_data; it gives nothing away:\n\n    {line_of(name, key)}')


def _check(name: str) -> None:
    if not re.fullmatch(_NAME, name):
        _end(f"{name!r} is no name of a key: lower-case letters, digits, and _ - after the first sign, at most 32")
    if name in RESERVED_NAMES:
        _end(f"{name} is a word of nginx's own; give the key another name")


def _end(message: str) -> None:
    print(message, file=sys.stderr)
    raise typer.Exit(BAD_INPUT)

"""Make the lab's hub fail in a chosen way: `fault TARGET FAULT[=VALUE]`, `fault TARGET clear`, `fault list`.

Runs on the internet machine. TARGET is a repository (organisation/name) or `all`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FILE = Path("/run/lab-internet/faults.json")
KNOWN = {
    "gated": "files answer 401 without a token and 403 with one; =TOKEN lets that token through",
    "unavailable": "every request about the repository answers 503",
    "slow": "weights are sent at this many bytes a second (4096)",
    "truncate": "weights end after this many bytes (half of what was asked for), the connection is closed",
    "corrupt": "the last byte of each weights file is wrong",
}


def change(faults: dict[str, dict[str, str]], target: str, word: str) -> dict[str, dict[str, str]]:
    """The faults after one command.

    Raises:
        ValueError: the fault is unknown.
    """
    rest = {name: dict(values) for name, values in faults.items() if name != target or word != "clear"}
    if word == "clear":
        return rest
    name, _, value = word.partition("=")
    if name not in KNOWN:
        raise ValueError(f"unknown fault {name!r}; known: {', '.join(KNOWN)}")
    rest.setdefault(target, {})[name] = value
    return rest


def main(arguments: list[str]) -> int:
    """Run one command; 2 when it is not understood."""
    faults = json.loads(FILE.read_text()) if FILE.is_file() else {}
    if arguments == ["list"]:
        print(json.dumps(faults, indent=1))
        return 0
    if len(arguments) != 2:
        print(__doc__, *(f"  {name:12} {text}" for name, text in KNOWN.items()), sep="\n", file=sys.stderr)
        return 2
    try:
        changed = change(faults, *arguments)
    except ValueError as error:
        print(f"fault: {error}", file=sys.stderr)
        return 2
    FILE.parent.mkdir(exist_ok=True)
    fresh = FILE.with_suffix(".new")
    fresh.write_text(json.dumps(changed))
    fresh.replace(FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

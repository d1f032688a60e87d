"""Extract the options of a real llama-server: `python3 extract_arguments.py PROGRAM >arguments.json`.

PROGRAM is run with --help; lab/up --real --engines builds one. Of each option its names, what it wants as a value and its environment
variable are kept, no descriptions. Options that are compiled in or out with TLS differ from the publisher's build.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

COLUMN = 40
"""Where the descriptions begin; a longer option has its own line."""


def options(text: str) -> list[dict[str, object]]:
    """The options in a help text, in order."""
    found: list[dict[str, object]] = []
    for line in text.splitlines():
        if line.startswith("-") and not line.startswith("-----"):
            head = line[:COLUMN] if len(line) > COLUMN and line[COLUMN - 1] == " " else line
            names = re.match(r"(?:-{1,2}[\w-]+,?\s*)+", head)
            if names:
                found.append({"names": re.findall(r"-{1,2}[\w-]+", names[0]), "value": head[names.end() :].strip()})
        elif found and (variable := re.search(r"\(env: (\w+)\)", line)):
            found[-1]["env"] = variable[1]
    return found


if __name__ == "__main__":
    shown = subprocess.run([sys.argv[1], "--help"], capture_output=True, text=True, check=True).stdout
    print("[\n" + ",\n".join(f" {json.dumps(option)}" for option in options(shown)) + "\n]")

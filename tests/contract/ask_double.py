"""What the double's own parser says to command lines: as record_cli.py does it with a real vLLM, JSON in and JSON out."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from typing import Any

from lab_vllm import arguments


def outcome(line: list[str]) -> dict[str, Any]:
    """Exit code and the words of the error."""
    code, text, errors = 0, "", io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            arguments.parse(line)
        except SystemExit as end:
            code = int(end.code or 0)
            found = re.search(r"^vllm[^\n]*: error: [\s\S]*", errors.getvalue(), re.MULTILINE)
            text = found.group(0).strip() if found else ""
        except (ValueError, TypeError, OSError, AssertionError, IndexError) as error:
            code, text = 1, f"{type(error).__name__}: {error}"
    return {"arguments": line, "code": code, "text": re.sub(r" at 0x[0-9a-f]+>", ">", text)}


if __name__ == "__main__":
    print(json.dumps([outcome(case["arguments"]) for case in json.load(sys.stdin)]))

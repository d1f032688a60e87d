#!/usr/bin/env python3
"""Record what the released vLLM's own command line says to the command lines in recorded_cli.json, and write the file anew.

Runs in the environment that extract_arguments.py describes; nothing is served, the commands end after parsing and validation. A new
case is written into the file by hand, as {"arguments": [...]}. Without a file name the cases come from stdin and the record goes to stdout.

    PYTHONPATH=$(python3 -m lab.real.released 0.19.1 CACHE) python record_cli.py recorded_cli.json
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")


def main() -> int:
    """Rewrite the file named on the command line, or answer on stdout; returns 0."""
    import vllm.platforms

    vllm.platforms.current_platform.device_type = "cuda"
    from vllm.entrypoints.cli import main as command
    from vllm.entrypoints.cli import serve

    serve.ServeSubcommand.cmd = staticmethod(lambda arguments: None)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    cases = [case["arguments"] for case in json.loads(path.read_text(encoding="utf-8") if path else sys.stdin.read())]
    lines = [json.dumps(outcome(command.main, arguments)) for arguments in cases]
    record = "[\n" + ",\n".join(lines) + "\n]\n"
    if path:
        path.write_text(record, encoding="utf-8")
    else:
        sys.stdout.write(record)
    return 0


def outcome(run: Any, arguments: list[str]) -> dict[str, Any]:
    """{"arguments", "code", "text"}: exit code, and the error line or exception without what differs from run to run."""
    sys.argv = ["vllm", *arguments]
    code, text, errors = 0, "", io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            run()
        except SystemExit as end:
            code = int(end.code or 0)
            found = re.search(r"^vllm[^\n]*: error: [\s\S]*", errors.getvalue(), re.MULTILINE)
            text = found.group(0).strip() if found else ""
        except BaseException as error:
            code, text = 1, f"{type(error).__name__}: {error}"
    return {"arguments": arguments, "code": code, "text": normalised(text)}


def normalised(text: str) -> str:
    """Without addresses of functions and the version of pydantic."""
    return re.sub(r"pydantic\.dev/[\d.]+/", "pydantic.dev/2.12/", re.sub(r" at 0x[0-9a-f]+>", ">", text))


if __name__ == "__main__":
    sys.exit(main())

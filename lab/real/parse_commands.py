"""Asks vLLM's own `vllm serve` parser about command lines, many in one process; run by the Python of an environment with vLLM.

Reads {"name": ["serve", "/model_data/X", "--dtype", "half"], ...} from stdin and writes to stdout
{"version": "...", "defaults": {...}, "results": {"name": {"accepted", "error", "warnings", "parsed"}}}; `parsed` has the values that
are not the default. No engine is started.

Which vLLM answers is decided by PYTHONPATH. Only the standard library and vLLM are imported.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

Line = list[str]
Result = dict[str, Any]


def main() -> int:
    """Answer; returns 0, whatever the parser thinks of the lines."""
    lines: dict[str, Line] = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # vLLM logs to stdout, from its import on
    version, subcommand, top, leaf = load()
    defaults = {action.dest: plain(action.default) for action in leaf._actions if action.default != argparse.SUPPRESS}
    results = {name: judge(subcommand, top, defaults, line) for name, line in lines.items()}
    json.dump({"version": version, "defaults": defaults, "results": results}, answer, indent=1)
    answer.close()
    return 0


def load() -> tuple[str, Any, argparse.ArgumentParser, argparse.ArgumentParser]:
    """(version, the serve subcommand, `vllm`'s parser, `vllm serve`'s parser)."""
    import vllm
    import vllm.platforms

    # The parser asks the platform for its device; the images that the lines are meant for are those for CUDA.
    vllm.platforms.current_platform.device_type = "cuda"
    # These two have been where they are since before 0.19.1; what is behind them has moved.
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    subcommand = ServeSubcommand()
    top = FlexibleArgumentParser(prog="vllm")
    leaf = subcommand.subparser_init(top.add_subparsers(required=False, dest="subparser"))
    return vllm.__version__, subcommand, top, leaf


def judge(subcommand: Any, top: argparse.ArgumentParser, defaults: dict[str, Any], line: Line) -> Result:
    """What the parser and vLLM's own validation say to one line, as `vllm` asks them."""
    error, parsed = None, {}
    with collected() as said:
        try:
            arguments, error = _parse(top, line)
            if arguments is not None:
                subcommand.validate(arguments)
                values = {name: plain(value) for name, value in vars(arguments).items() if name != "subparser"}
                parsed = {name: value for name, value in values.items() if value != defaults.get(name)}
        except Exception as refusal:
            error = f"{type(refusal).__name__}: {refusal}"
    return {"accepted": error is None, "error": error, "warnings": said, "parsed": {} if error else parsed}


def _parse(top: argparse.ArgumentParser, line: Line) -> tuple[argparse.Namespace | None, str | None]:
    """(arguments, None), or (None, what argparse wrote before it left)."""
    errors, output = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            return top.parse_args(line), None
        except SystemExit as end:
            status = end.code
    if not status:
        return None, "it prints a text and ends"
    return None, errors.getvalue().rpartition(": error: ")[2].strip() or f"exit status {status}"


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """A list that fills with the warnings of vLLM's log and of Python."""
    said: list[str] = []
    handler = _Collector(said)
    logger = logging.getLogger("vllm")
    _forget_what_was_said_once()
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield said
        said += [f"{warning.category.__name__}: {warning.message}" for warning in seen]
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


def _forget_what_was_said_once() -> None:
    """`warning_once` remembers for the whole process; here each line is the first."""
    import vllm.logger

    for value in vars(vllm.logger).values():
        forget: Callable[[], None] | None = getattr(value, "cache_clear", None)
        if forget:
            forget()


def plain(value: Any) -> Any:
    """A value as JSON can hold it: a configuration object as its fields, anything else unknown as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name, None)) for field in dataclasses.fields(value) if field.init
        }
    return str(value)


if __name__ == "__main__":
    sys.exit(main())

"""Log lines as Ollama writes them: slog text to stderr, the request log of gin to stdout."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

from lab_serve.http import HttpRequest


def log(level: str, place: str, message: str, **fields: object) -> None:
    """One slog line, for instance `time=... level=INFO source=sched.go:500 msg="loaded runners" count=1`."""
    now = datetime.now(UTC)
    stamp = now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"
    parts = [f"time={stamp}", f"level={level}", f"source={place}", f"msg={_value(message)}"]
    parts += [f"{name}={_value(value)}" for name, value in fields.items()]
    print(" ".join(parts), file=sys.stderr, flush=True)


def access(request: HttpRequest, status: int, seconds: float) -> None:
    """One line of gin's request log."""
    took = f"{seconds:.6f}s" if seconds >= 1 else f"{seconds * 1000:.6f}ms"
    when = time.strftime("%Y/%m/%d - %H:%M:%S")
    address = request.client.rsplit(":", 1)[0]
    print(f'[GIN] {when} | {status} | {took:>13} | {address:>15} | {request.method:<8} "{request.path}"', flush=True)


def _value(value: object) -> str:
    text = str(value)
    return f'"{text}"' if not text or any(mark in text for mark in ' "=') else text

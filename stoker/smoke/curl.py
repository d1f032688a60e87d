"""HTTP requests by the real ``curl``: the command line that is printed is the one that ran."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds until a host that does not answer at all is given up.
CONNECT_SECONDS = 3
#: Bodies longer than this go by a file: a command line with pages of text is nothing to paste.
INLINE_BODY = 1500
#: curl writes this after the answer; the last line of its output.
_TRAILER = "\\n%{http_code} %{time_total}\\n"


@dataclass(frozen=True)
class Key:
    """A secret that a request carries. Only its variable's name is ever printed."""

    variable: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Request:
    """GET, or POST where there is a body. ``seconds`` bounds the whole exchange."""

    url: str
    body: Mapping[str, object] | None = None
    key: Key | None = None
    seconds: int = 20
    #: ``address:port`` to ask in place of the URL's own.
    connect: str = ""


@dataclass(frozen=True)
class Answer:
    """What came back. ``status`` is 0 when nothing did; ``error`` is then curl's own words."""

    status: int
    seconds: float
    body: str
    headers: Mapping[str, str]
    error: str = ""

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    def excerpt(self, limit: int = 600) -> str:
        """Status and the beginning of the body, for a failure's text."""
        if not self.status:
            return f"no answer: {self.error}"
        body = self.body.strip() or "(empty body)"
        cut = "" if len(body) <= limit else f" ... ({len(body)} characters in all)"
        return f"HTTP {self.status} after {self.seconds:.2f} s: {body[:limit]}{cut}"


def argv(request: Request) -> list[str]:
    """The command line. A body too long for it is written to a file that stays, so that the line can be repeated.

    Raises OSError when that file cannot be written.
    """
    text = body_text(request)
    return words(request, ["-d", text] if len(text) <= INLINE_BODY else ["--data-binary", f"@{body_file(text)}"])


def body_text(request: Request) -> str:
    return "" if request.body is None else json.dumps(request.body, ensure_ascii=False)


def words(request: Request, data: Sequence[str]) -> list[str]:
    """The command line with the options ``data`` where there is a body. A key is read from standard input."""
    line = ["curl", "-q", "-sS", "-i", "--noproxy", "*"]
    line += ["--connect-timeout", str(CONNECT_SECONDS), "--max-time", str(request.seconds), "-w", _TRAILER, request.url]
    if request.connect:
        line += ["--connect-to", f"::{request.connect}"]
    if request.key is not None:
        line += ["-H", "@-"]  # from standard input: a command line shows in the process list
    return line if request.body is None else [*line, "-H", "Content-Type: application/json", *data]


def printed(request: Request) -> str:
    """The line to paste into a shell. A key appears as its variable."""
    return with_key(request, shlex.join(argv(request)))


def with_key(request: Request, line: str) -> str:
    """A line that reads the request's key from standard input, behind what gives it the key."""
    return f"printf 'Authorization: Bearer %s' \"${request.key.variable}\" | {line}" if request.key else line


def header(request: Request) -> str:
    return f"Authorization: Bearer {request.key.value}" if request.key else ""


def run(request: Request) -> Answer:
    """Run curl. Does not raise for anything that a server or a network does; FileNotFoundError without curl."""
    try:
        done = subprocess.run(
            argv(request), input=header(request).encode(), capture_output=True, timeout=request.seconds + 5, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(0, request.seconds + 5.0, "", {}, "curl did not keep its own time limit and was stopped")
    return parse(done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace").strip())


def parse(output: str, error: str) -> Answer:
    """curl's output with ``-i`` and the trailer as an Answer. A partial answer keeps its status and carries the error."""
    content, _, trailer = output.rstrip("\n").rpartition("\n")
    status, _, seconds = trailer.partition(" ")
    headers, body = _split(content)
    try:
        answer = Answer(int(status), float(seconds), body, headers, error)
    except ValueError:
        return Answer(0, 0.0, output, {}, error or "curl printed nothing")
    return answer


def _split(content: str) -> tuple[dict[str, str], str]:
    """Headers with names in lower case, and the body. Interim answers (100 Continue) come first and are dropped."""
    headers: dict[str, str] = {}
    body = content
    while body.startswith("HTTP/"):
        head, _, body = body.replace("\r\n", "\n").partition("\n\n")
        lines = (line.partition(":") for line in head.splitlines()[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        if not head.splitlines()[0].split(" ")[1].startswith("1"):
            break
    return headers, body


def body_file(text: str) -> Path:
    """The same text always has the same file. Written whole or not at all: several checks may write it at once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stoker" / "smoke"
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    return path

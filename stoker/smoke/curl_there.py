"""The same requests, made on a host itself: where its engines' ports are closed to this machine."""

from __future__ import annotations

import shlex

from stoker.smoke import curl
from stoker.smoke.ssh import Shell


def run(request: curl.Request, shell: Shell) -> curl.Answer:
    """Run curl there. Raises AccessError when the host cannot be asked; not for anything that the engine does."""
    words, stdin = _sent(request)
    _, output, errors = shell.outcome(shlex.join(words), request.seconds + 5, stdin)
    return curl.parse(output, errors.strip())


def printed(request: curl.Request, shell: Shell) -> str:
    """The line to paste into a shell here."""
    words, stdin = _sent(request)
    line = shell.line(shlex.join(words))
    return f"{line} <{curl.body_file(stdin)}" if stdin and not request.key else curl.with_key(request, line)


def _sent(request: curl.Request) -> tuple[list[str], str]:
    """Command line and standard input: the key's header, else a body that is too long for the line."""
    text = curl.body_text(request)
    if request.key is None and len(text) > curl.INLINE_BODY:
        return curl.words(request, ["--data-binary", "@-"]), text
    return curl.words(request, ["-d", text]), curl.header(request)

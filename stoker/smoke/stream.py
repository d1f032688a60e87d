"""Does a streamed answer arrive piece by piece? curl does not tell, so this reads the connection itself."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from stoker.smoke import answers
from stoker.smoke.check import CheckFailed
from stoker.smoke.curl import CONNECT_SECONDS, Request
from stoker.smoke.pinned import pinned, trusted

#: An answer that was held back somewhere comes within a few milliseconds; no engine writes this many tokens that fast.
_LEAST_GAP_SECONDS = 0.02
_LEAST_PIECES = 3

_REMEDY = "something on the way collects the answer: proxy_buffering and gzip must be off in every proxy between here and the engine"


class NotInPieces(CheckFailed):
    """The answer is right, and came all at once."""


@dataclass(frozen=True)
class Piece:
    """What one read of the connection gave, and when: seconds since the request."""

    seconds: float
    data: bytes


@dataclass(frozen=True)
class Stream:
    """A streamed answer as it arrived. ``status`` is 0 when there was none."""

    status: int
    content_type: str = ""
    request_id: str = ""
    pieces: Sequence[Piece] = field(default_factory=tuple)
    error: str = ""

    @property
    def text(self) -> str:
        return b"".join(piece.data for piece in self.pieces).decode("utf-8", "replace")


def read(request: Request) -> Stream:
    """Send the request and note when each piece arrives. Gives up after its seconds; raises nothing for the network's faults."""
    to, seconds = pinned(request.url, request.connect), request.seconds
    headers = {**to.headers, **({"Authorization": f"Bearer {request.key.value}"} if request.key else {})}
    started = time.monotonic()
    pieces: list[Piece] = []
    status, content_type, request_id = 0, "", ""
    try:
        with (
            httpx.Client(
                trust_env=False, timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS), verify=trusted()
            ) as client,
            client.stream(
                "POST", to.url, json=dict(request.body or {}), headers=headers, extensions=dict(to.extensions)
            ) as response,
        ):
            status, content_type = response.status_code, response.headers.get("content-type", "")
            request_id = response.headers.get("x-request-id", "")
            for data in response.iter_raw():
                elapsed = time.monotonic() - started
                pieces.append(Piece(elapsed, data))
                if elapsed > seconds:
                    return Stream(status, content_type, request_id, pieces, f"not finished after {seconds} s")
    except (httpx.HTTPError, OSError) as error:
        return Stream(status, content_type, request_id, pieces, f"{type(error).__name__}: {error}")
    return Stream(status, content_type, request_id, pieces)


def evaluate(stream: Stream, model: str) -> str:
    """Right content, and really in pieces. Raises CheckFailed; NotInPieces when only that is wrong."""
    _complete(stream)
    events = [json.loads(data) for data in _events(stream.text) if data != "[DONE]"]
    deltas = [_delta(event) for event in events]
    for event in events:
        answers.same_model(event, model)
    shown = answers.words("".join(deltas))
    first, last = stream.pieces[0].seconds, stream.pieces[-1].seconds
    if len(stream.pieces) < _LEAST_PIECES or last - first < _LEAST_GAP_SECONDS:
        raise NotInPieces(
            f"pieces one after the other (at least {_LEAST_PIECES}, over at least {_LEAST_GAP_SECONDS * 1000:.0f} ms)",
            f"{len(stream.pieces)} pieces, the first after {first:.3f} s and the last after {last:.3f} s: {shown}",
            _REMEDY,
        )
    return f"{len(stream.pieces)} pieces, first after {first * 1000:.0f} ms, last after {last * 1000:.0f} ms"


def _complete(stream: Stream) -> None:
    found = f"HTTP {stream.status}, {stream.content_type or 'no content type'}: {stream.text[:400] or '(empty body)'}"
    if stream.error:
        raise CheckFailed(
            "a complete stream",
            f"{stream.error} ({found})" if stream.status else stream.error,
            "see whether the engine and the gateway run (docker ps -a, docker logs)",
        )
    if stream.status != 200 or not stream.content_type.startswith("text/event-stream"):
        raise CheckFailed("HTTP 200 with text/event-stream", found, "read the engine's log (docker logs)")
    if not stream.text.rstrip().endswith("data: [DONE]"):
        raise CheckFailed(
            "a stream that ends with data: [DONE]",
            f"its end is {stream.text[-200:]!r}",
            "the answer was cut off: read the logs of engine and gateway",
        )
    try:
        [json.loads(data) for data in _events(stream.text) if data != "[DONE]"]
    except ValueError as error:
        raise CheckFailed("events of JSON", f"{error} in {stream.text[:400]}", "find out what listens there") from None


def _events(text: str) -> list[str]:
    return [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]


def _delta(event: dict[str, object]) -> str:
    choices = event.get("choices")
    delta = choices[0].get("delta") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    return str(delta.get("content") or "") if isinstance(delta, dict) else ""

"""Requests to an engine, each on a connection of its own, and what came back."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from running import Running
from subjects import KEY

SECONDS = 120.0
AUTHORIZED = {"authorization": f"Bearer {KEY}"}
JSON = {"content-type": "application/json"}


@dataclass
class Answer:
    """One answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    kept: bool = True  # the connection took another request afterwards

    def json(self) -> Any:
        return json.loads(self.body)

    def text(self) -> str:
        return self.body.decode(errors="replace")


def ask(
    running: Running,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: dict[str, str] | None = None,
    raw: bytes | None = None,
    again: bool = False,
    seconds: float = SECONDS,
) -> Answer:
    """Send one request; with `again` also find out whether the connection still takes another."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=seconds)
    given = dict(headers or {})
    if body is not None:
        given |= JSON
    try:
        connection.request(method, path, json.dumps(body).encode() if body is not None else raw, given)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, headers, response.read())
        if again:
            answer.kept = connection.sock is not None and _takes_another(connection)
        return answer
    finally:
        connection.close()


def _takes_another(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/nope")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    return True


def outcome(running: Running, path: str) -> int | str:
    """Status of a GET, or how the connection failed."""
    try:
        return ask(running, "GET", path, seconds=5).status
    except ConnectionRefusedError:
        return "refused"
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def shape(value: Any) -> Any:
    """A JSON value with the names of types instead of the values; of a list its first element."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return {str: "str", bool: "bool", int: "int", float: "float", type(None): "null"}[type(value)]


def events(answer: Answer) -> list[str]:
    """The events of a stream, as they were framed: each ends with an empty line."""
    return answer.text().split("\n\n")


def chunks(answer: Answer) -> list[dict[str, Any]]:
    """The JSON of a stream's events without the end mark."""
    lines = [event.removeprefix("data: ") for event in events(answer) if event.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]

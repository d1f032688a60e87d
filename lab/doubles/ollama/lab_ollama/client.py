"""The client commands: list, ps, pull, show, create, rm, cp, run, stop."""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab_ollama.server import address

NOT_RUNNING = "Error: could not connect to ollama server, run 'ollama serve' to start it"


class ClientError(Exception):
    """What the command ends with: exit code 1 and this text."""


def run(command: str, arguments: list[str]) -> int:
    """Run one client command; returns the exit code."""
    commands = {
        "list": _list,
        "ls": _list,
        "ps": _ps,
        "pull": _pull,
        "show": _show,
        "create": _create,
        "rm": _remove,
        "cp": _copy,
        "run": _run,
        "stop": _stop,
    }
    try:
        commands[command](arguments)
    except ClientError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _list(arguments: list[str]) -> None:
    rows = [("NAME", "ID", "SIZE", "MODIFIED")]
    for model in _call("GET", "/api/tags")["models"]:
        rows.append((model["name"], model["digest"][:12], _size(model["size"]), _ago(model["modified_at"])))
    _table(rows)


def _ps(arguments: list[str]) -> None:
    rows = [("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")]
    for model in _call("GET", "/api/ps")["models"]:
        processor = "100% GPU" if model["size_vram"] == model["size"] else "100% CPU"
        years = int(model["expires_at"][:4]) - datetime.now(UTC).year
        until = "Forever" if years > 100 else _in(model["expires_at"])
        rows.append(
            (model["name"], model["digest"][:12], _size(model["size"]), processor, str(model["context_length"]), until)
        )
    _table(rows)


def _pull(arguments: list[str]) -> None:
    names = [item for item in arguments if item != "--insecure"]
    _follow("/api/pull", {"model": _first(names), "insecure": "--insecure" in arguments})


def _show(arguments: list[str]) -> None:
    shown = _call("POST", "/api/show", {"model": _first([item for item in arguments if not item.startswith("--")])})
    if "--modelfile" in arguments:
        print(shown["modelfile"], end="")
    elif "--parameters" in arguments:
        print(shown["parameters"])
    else:
        info, details = shown["model_info"], shown["details"]
        family = info["general.architecture"]
        print(
            f"  Model\n    architecture        {info['general.architecture']}\n    parameters          {details['parameter_size']}"
        )
        print(
            f"    context length      {info[family + '.context_length']}\n    embedding length    {info[family + '.embedding_length']}"
        )
        print(f"    quantization        {details['quantization_level']}\n\n  Capabilities\n    embedding")
        if shown["parameters"]:
            print("\n  Parameters\n" + "\n".join(f"    {line}" for line in shown["parameters"].splitlines()))


def _create(arguments: list[str]) -> None:
    if "-f" not in arguments and "--file" not in arguments:
        raise ClientError("Error: no Modelfile or safetensors files found")
    flag = "-f" if "-f" in arguments else "--file"
    position = arguments.index(flag)
    path = arguments[position + 1] if position + 1 < len(arguments) else ""
    names = [item for index, item in enumerate(arguments) if index not in (position, position + 1)]
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ClientError(f"Error: {error}") from error
    _follow("/api/create", {"model": _first(names), **parse_modelfile(text)})


def parse_modelfile(text: str) -> dict[str, Any]:
    """`from` and `parameters` of a Modelfile. Raises ClientError."""
    source, parameters = "", {}
    for line in text.splitlines():
        words = line.split(None, 2)
        if not words or line.lstrip().startswith("#"):
            continue
        keyword = words[0].upper()
        if keyword == "FROM" and len(words) > 1:
            source = words[1]
        elif keyword == "PARAMETER" and len(words) == 3:
            value = words[2].strip()
            parameters[words[1]] = int(value) if re.fullmatch(r"-?\d+", value) else value
        elif keyword not in ("TEMPLATE", "SYSTEM", "LICENSE", "MESSAGE", "ADAPTER"):
            raise ClientError(
                f'Error: command must be one of "from", "license", "template", "system", "parameter": {words[0]}'
            )
    if not source:
        raise ClientError("Error: no FROM line")
    return {"from": source, "parameters": parameters}


def _remove(arguments: list[str]) -> None:
    name = _first(arguments)
    _call("DELETE", "/api/delete", {"model": name})
    print(f"deleted '{name}'")


def _copy(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise ClientError(f"Error: accepts 2 arg(s), received {len(arguments)}")
    _call("POST", "/api/copy", {"source": arguments[0], "destination": arguments[1]})
    print(f"copied '{arguments[0]}' to '{arguments[1]}'")


def _run(arguments: list[str]) -> None:
    name = _first(arguments)
    text = " ".join(arguments[1:])
    answer = _call("POST", "/api/embed", {"model": name, **({"input": text} if text else {})})
    if text:
        print(json.dumps(answer["embeddings"][0]))


def _stop(arguments: list[str]) -> None:
    _call("POST", "/api/embed", {"model": _first(arguments), "keep_alive": 0})


def _call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    answer = _request(method, path, body)
    text = answer.read()
    if answer.status >= 400:
        raise ClientError(f"Error: {json.loads(text).get('error', text.decode())}")
    return json.loads(text) if text else None


def _follow(path: str, body: dict[str, Any]) -> None:
    """Show the progress lines of a streamed answer."""
    answer = _request("POST", path, body)
    for line in _lines(answer):
        if "error" in line:
            raise ClientError(f"Error: {line['error']}")
        if line.get("total"):
            share = 100 * line.get("completed", 0) // line["total"]
            print(
                f"\r{line['status']}: {share:3d}% {_size(line['total'])}",
                end="\n" if share == 100 else "",
                file=sys.stderr,
            )
        else:
            print(line["status"], file=sys.stderr)


def _lines(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        yield json.loads(line)


def _request(method: str, path: str, body: dict[str, Any] | None) -> http.client.HTTPResponse:
    host, port = address()
    connection = http.client.HTTPConnection("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        return connection.getresponse()
    except OSError as error:
        raise ClientError(NOT_RUNNING) from error


def _first(arguments: list[str]) -> str:
    if not arguments:
        raise ClientError("Error: requires at least 1 arg(s), only received 0")
    return arguments[0]


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size} B"


def _ago(stamp: str) -> str:
    return _span((datetime.now(UTC) - datetime.fromisoformat(stamp.replace("Z", "+00:00"))).total_seconds()) + " ago"


def _in(stamp: str) -> str:
    return (
        _span((datetime.fromisoformat(stamp.replace("Z", "+00:00")) - datetime.now(UTC)).total_seconds()) + " from now"
    )


def _span(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{int(seconds // size)} {name}"
    return f"{int(max(seconds, 1))} seconds"

"""Requests that a host makes to itself: over real SSH to a stand-in, and as a line to paste."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from smoke_stand_in import StandIn
from test_smoke_ssh import shell

from stoker.smoke import curl_there
from stoker.smoke.curl import Key, Request
from stoker.smoke.ssh import Login, Shell

LONG = {"model": "m", "input": "wörd " * 5000}
SHORT = {"model": "m", "text": "it's $HOME\n"}
KEY = Key("VLLM_API_KEY", "s3cret-value")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("key", [None, KEY], ids=["no key", "key"])
@pytest.mark.parametrize("body", [None, SHORT, LONG], ids=["GET", "short", "long"])
def test_body_and_key_arrive(tmp_path: Path, body: dict[str, object] | None, key: Key | None) -> None:
    with StandIn(("m",)).serving() as server, shell(tmp_path) as made:
        request = Request(f"http://127.0.0.1:{server.port}/v1/models", body, key, 5)
        answer = curl_there.run(request, made)
    assert answer.status == 200
    ((_, headers, sent),) = server.requests
    assert sent == body
    assert headers.get("Authorization") == (f"Bearer {KEY.value}" if key else None)


def test_an_engine_that_does_not_listen_is_named_by_curl(tmp_path: Path) -> None:
    with shell(tmp_path) as made:
        answer = curl_there.run(Request("http://127.0.0.1:9/", None, None, 5), made)
    assert answer.status == 0
    assert "Failed to connect" in answer.error or "refused" in answer.error


@pytest.mark.parametrize("key", [None, KEY], ids=["no key", "key"])
@pytest.mark.parametrize("body", [SHORT, LONG], ids=["short", "long"])
def test_the_printed_line_can_be_pasted(tmp_path: Path, body: dict[str, object], key: Key | None) -> None:
    """With a program in ssh's place that runs the command here."""
    program = tmp_path / "ssh"
    program.write_text('#!/bin/sh\nexec sh -c "$2"\n')
    program.chmod(0o755)

    def no_connection() -> None:
        raise AssertionError

    there = Shell(Login(no_connection, (str(program), "box")))  # type: ignore[arg-type]
    with StandIn(("m",)).serving() as server:
        line = curl_there.printed(Request(f"http://127.0.0.1:{server.port}/v1/models", body, key), there)
        subprocess.run(
            line, shell=True, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "VLLM_API_KEY": "x"}
        )
    assert KEY.value not in line
    ((_, headers, sent),) = server.requests
    assert sent == body
    assert headers.get("Authorization") == ("Bearer x" if key else None)

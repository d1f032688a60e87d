"""curl: the command line is what runs, and a secret never shows."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
from smoke_stand_in import StandIn

from stoker.smoke import curl
from stoker.smoke.curl import Key, Request


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_status_time_headers_and_body() -> None:
    with StandIn(("m",), members=("a:1",)).serving() as server:
        answer = curl.run(Request(f"http://127.0.0.1:{server.port}/v1/models"))
    assert answer.status == 200
    assert 0 < answer.seconds < 5
    assert json.loads(answer.body)["data"] == [{"id": "m"}]
    assert answer.request_id == "request-0"
    assert answer.error == ""


def test_what_is_printed_can_be_pasted() -> None:
    with StandIn(("m",)).serving() as server:
        request = Request(f"http://127.0.0.1:{server.port}/v1/chat/completions", {"model": "m", "text": "it's $HOME\n"})
        done = subprocess.run(curl.printed(request), shell=True, capture_output=True, text=True, check=True)
    assert shlex.split(curl.printed(request)) == curl.argv(request)
    assert server.requests[0][2] == request.body
    assert server.requests[0][1]["Content-Type"] == "application/json"
    assert "\n200 0." in done.stdout


def test_a_key_is_sent_but_never_printed() -> None:
    with StandIn(("m",)).serving() as server:
        request = Request(f"http://127.0.0.1:{server.port}/v1/models", key=Key("VLLM_API_KEY", "s3cret-value"))
        assert curl.run(request).status == 200
    assert server.requests[0][1]["Authorization"] == "Bearer s3cret-value"
    assert not any("s3cret-value" in word for word in curl.argv(request))
    assert "s3cret-value" not in curl.printed(request) + repr(request)
    assert '"$VLLM_API_KEY"' in curl.printed(request)


def test_a_printed_key_works_from_its_variable() -> None:
    with StandIn(("m",)).serving() as server:
        request = Request(f"http://127.0.0.1:{server.port}/v1/models", key=Key("VLLM_API_KEY", "s3cret-value"))
        subprocess.run(
            curl.printed(request),
            shell=True,
            capture_output=True,
            check=True,
            env={"PATH": "/usr/bin:/bin", "VLLM_API_KEY": "mine"},
        )
    assert server.requests[0][1]["Authorization"] == "Bearer mine"


def test_a_long_body_goes_by_a_file_that_stays() -> None:
    request = Request("http://127.0.0.1:9/", {"model": "m", "input": "word " * 5000})
    line = curl.argv(request)
    path = Path(line[line.index("--data-binary") + 1].removeprefix("@"))
    assert json.loads(path.read_text(encoding="utf-8")) == request.body
    assert curl.argv(request) == line
    assert max(map(len, line)) < 300


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        answer = curl.run(Request(f"http://127.0.0.1:{taken.getsockname()[1]}/"))
    assert answer.status == 0
    assert "connect" in answer.error.lower()
    assert answer.excerpt().startswith("no answer: curl: (7)")


def test_a_server_that_never_answers_costs_the_limit_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = curl.run(Request(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=1))
    assert answer.status == 0
    assert "timed out" in answer.error.lower()


def test_interim_answers_are_not_the_answer() -> None:
    answer = curl.parse(
        'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Request-ID: abc\r\n\r\n{"a": 1}\n200 0.125\n', ""
    )
    assert (answer.status, answer.seconds, answer.body, answer.request_id) == (200, 0.125, '{"a": 1}', "abc")


def test_output_without_a_trailer_is_no_answer() -> None:
    assert curl.parse("", "curl: (3) bad URL").excerpt() == "no answer: curl: (3) bad URL"


def test_excerpt_is_short() -> None:
    answer = curl.parse("HTTP/1.1 500 X\r\n\r\n" + "x" * 5000 + "\n500 1.5\n", "")
    assert len(answer.excerpt()) < 700
    assert answer.excerpt().startswith("HTTP 500 after 1.50 s: xxx")
    assert "5000 characters" in answer.excerpt()

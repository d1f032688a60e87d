"""Streams that arrive in pieces, and streams that do not."""

from __future__ import annotations

import socket

import pytest
from smoke_stand_in import StandIn, as_json

from stoker.smoke import stream
from stoker.smoke.check import CheckFailed
from stoker.smoke.curl import Request
from stoker.smoke.stream import Piece, Stream

BODY = {"model": "m", "stream": True}


def streamed(stand_in: StandIn, seconds: int = 5) -> Stream:
    with stand_in.serving() as server:
        return stream.read(Request(f"http://127.0.0.1:{server.port}/v1/chat/completions", BODY, seconds=seconds))


def found(answer: Stream) -> str:
    with pytest.raises(CheckFailed) as caught:
        stream.evaluate(answer, "m")
    return caught.value.found


def test_pieces() -> None:
    answer = streamed(StandIn(("m",), members=("a:1",)))
    assert answer.request_id == "request-0"
    assert len(answer.pieces) >= 4
    assert "pieces, first after" in stream.evaluate(answer, "m")


def test_an_answer_that_was_collected_on_the_way() -> None:
    assert "1 pieces" in found(streamed(StandIn(("m",), pause=None)))


def test_pieces_that_come_all_at_once() -> None:
    good = streamed(StandIn(("m",)))
    burst = Stream(200, good.content_type, "", tuple(Piece(1.0, piece.data) for piece in good.pieces))
    assert "the first after 1.000 s and the last after 1.000 s" in found(burst)


def test_one_repeated_character() -> None:
    assert "one repeated character" in found(streamed(StandIn(("m",), content="! !! ! !! !!!!")))


def test_another_model() -> None:
    good = streamed(StandIn(("m",)))
    with pytest.raises(CheckFailed, match="an answer of other"):
        stream.evaluate(good, "other")


def test_an_error_instead_of_a_stream() -> None:
    assert "HTTP 503, application/json" in found(
        streamed(StandIn(("m",), replies={"/v1/chat/completions": as_json({"error": "x"}, 503)}))
    )


def test_a_stream_that_ends_early() -> None:
    assert "its end is" in found(Stream(200, "text/event-stream", "", (Piece(0.1, b'data: {"model": "m"}\n\n'),)))


def test_events_that_are_not_json() -> None:
    assert "data: {oops" in found(
        Stream(200, "text/event-stream", "", (Piece(0.1, b"data: {oops\n\ndata: [DONE]\n\n"),))
    )


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer = stream.read(Request(f"http://127.0.0.1:{taken.getsockname()[1]}/", BODY, seconds=5))
    assert found(answer).startswith("ConnectError")


def test_a_server_that_never_answers_costs_the_limit_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = stream.read(Request(f"http://127.0.0.1:{silent.getsockname()[1]}/", BODY, seconds=1))
    assert found(answer).startswith("ReadTimeout")

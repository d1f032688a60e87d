"""Streams pass piece by piece, and a client that leaves is noticed by the engine."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from gateway_members import Member
from gateway_process import PATIENCE, RunningGateway, Start, until

STREAM = {"model": "qwen2.5-14b", "stream": True}
QWEN = {"model": "qwen2.5-14b"}


def qwen(members: list[Member]) -> Member:
    return members[-1]


def read_until(connection: socket.socket, end: bytes, received: bytes = b"") -> bytes:
    """What was received so far and what comes, until it holds `end`."""
    while end not in received:
        piece = connection.recv(65536)
        assert piece, f"closed before {end!r}: {received!r}"
        received += piece
    return received


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/qwen/v1/completions"])
def test_each_piece_arrives_before_the_next_is_made(
    gateway: RunningGateway, all_members: list[Member], path: str
) -> None:
    """The member makes a piece only after the client has the one before: a buffer anywhere would block for ever."""
    member = qwen(all_members)
    member.gate = threading.Semaphore(1)
    with gateway.open(path, STREAM) as connection:
        received = b""
        for number in range(3):
            received = read_until(connection, json.dumps({"member": "qwen", "piece": number}).encode(), received)
            member.gate.release()
        read_until(connection, b"data: [DONE]\n\n\r\n0\r\n\r\n", received)
    assert gateway.log(path)["stream"] == "true"


@pytest.mark.parametrize("body", [STREAM, QWEN], ids=["stream", "one answer"])
def test_a_client_that_leaves_frees_the_member(
    gateway: RunningGateway, all_members: list[Member], body: object
) -> None:
    member = qwen(all_members)
    member.gate = threading.Semaphore(0)
    with gateway.open("/v1/chat/completions", body):
        until(lambda: member.running)
        assert not member.aborted.is_set()
    assert member.aborted.wait(1.0), "the member was not told within a second"
    assert member.running == 0


def test_a_stream_that_breaks_is_not_repeated(gateway: RunningGateway, all_members: list[Member]) -> None:
    llamas = [member for member in all_members if member.model == "llama3.1-8b"]
    for member in llamas:
        member.mode = "reset_in_stream"
    with gateway.open("/v1/chat/completions", {"model": "llama3.1-8b", "stream": True}) as connection:
        connection.settimeout(PATIENCE)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.startswith(b"HTTP/1.1 200")
    assert not received.endswith(b"0\r\n\r\n"), "a broken stream must not look finished"
    assert sum(len(member.received) for member in llamas) == 1


@pytest.mark.parametrize("spoken", [0, 1], ids=["before the answer", "in the answer"])
def test_a_silence_within_read_seconds_cuts_nothing(start: Start, all_members: list[Member], spoken: int) -> None:
    """Longer than every other limit, as the default's 600 s are: a model that thinks for minutes is not cut off."""
    member = qwen(all_members)
    member.forget()
    running = start(all_members, connect_seconds=1, send_seconds=1, read_seconds=4)
    member.gate = threading.Semaphore(spoken)
    with running.open("/v1/chat/completions", STREAM) as connection:
        received = read_until(connection, b'"piece": 0') if spoken else b""
        connection.settimeout(1.5)
        with pytest.raises(TimeoutError):
            read_until(connection, b'"piece": 1', received)
        connection.settimeout(PATIENCE)
        for _ in range(3):
            member.gate.release()
        read_until(connection, b"data: [DONE]\n\n\r\n0\r\n\r\n", received)


def test_a_stream_silent_beyond_read_seconds_is_broken_off(start: Start, all_members: list[Member]) -> None:
    """It must not look finished, and the member is freed."""
    member = qwen(all_members)
    member.forget()
    running = start(all_members, connect_seconds=1, send_seconds=1, read_seconds=1)
    member.gate = threading.Semaphore(1)
    with running.open("/v1/chat/completions", STREAM) as connection:
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert b'"piece": 0' in received
    assert not received.endswith(b"0\r\n\r\n")
    assert member.aborted.wait(PATIENCE)
    assert len(member.received) == 1

"""`stoker logs`: every line once, whole and in order; which lines are errors; what happens when a container or a connection ends."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smoke_sshd import connect, ssh_server
from support.fleet import PROJECT
from support.forked import Call, Result, call

from stoker.logs import remote, stream
from stoker.logs.command import Wanted
from stoker.logs.errors import Errors
from stoker.logs.lines import PIECE_BYTES, Line, read, split
from stoker.logs.merge import MOST, WINDOW_SECONDS, Window, merged
from stoker.logs.remote import Part
from stoker.logs.show import Prefixes
from stoker.logs.stream import Follower, Source, once
from stoker.smoke.ssh import Login, Shell


def time_of(second: int) -> str:
    return f"2026-11-21T03:00:{second:02d}.000000000Z"


def line(second: int, name: str = "x", text: str = "") -> Line:
    return Line(time_of(second), name, text)


# --- lines -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=30)), st.lists(st.integers(1, 20)))
def test_lines_are_whole_however_they_come(texts: list[bytes], sizes: list[int]) -> None:
    wanted = [text.replace(b"\n", b"") for text in texts]
    whole = b"".join(text + b"\n" for text in wanted)
    parts, at = [], 0
    for size in sizes:
        parts.append(whole[at : at + size])
        at += size
    assert list(split([*parts, whole[at:]])) == wanted


def test_the_rest_without_an_end_is_a_line_too() -> None:
    assert list(split([b"a\nb", b"c"])) == [b"a", b"bc"]


@pytest.mark.parametrize("size", [0, 5, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7])
def test_a_long_line_is_joined_from_its_pieces(size: int) -> None:
    """As Docker prints it: the same time before each 16 KiB."""
    text = b"0123456789" * (size // 10) + b"x" * (size % 10)
    head = time_of(1).encode() + b" "
    pieces = [text[at : at + PIECE_BYTES] for at in range(0, max(size, 1), PIECE_BYTES)]
    assert read("n", b"".join(head + piece for piece in pieces)) == Line(time_of(1), "n", text.decode())


def test_docker_s_own_words_are_no_line() -> None:
    assert read("n", b"Error response from daemon: No such container: n") is None
    assert read("n", time_of(1).encode() + b" caf\xe9") == Line(time_of(1), "n", "caf�")


# --- order -----------------------------------------------------------------------------------------------------------


def test_streams_are_merged_one_line_at_a_time() -> None:
    taken = []

    def endless(name: str, begin: int) -> Iterator[Line]:
        for second in range(begin, 60, 2):
            taken.append(name)
            yield line(second, name)

    found = merged([endless("a", 0), endless("b", 1)])
    assert [next(found).name for _ in range(4)] == ["a", "b", "a", "b"]
    assert len(taken) <= 6, "not read further than needed"


def test_what_is_followed_waits_a_little_for_older_lines() -> None:
    now = [0.0]
    window = Window(lambda: now[0])
    window.add(line(5))
    now[0] = WINDOW_SECONDS / 2
    window.add(line(3))
    assert list(window.due()) == []
    now[0] = WINDOW_SECONDS
    assert list(window.due()) == [], "the older one came later and goes first"
    now[0] = WINDOW_SECONDS * 1.5
    assert list(window.due()) == [line(3), line(5)]


def test_never_more_than_so_many_wait() -> None:
    window = Window(lambda: 0.0)
    for _ in range(MOST + 2):
        window.add(line(1))
    assert len(list(window.due())) == 2


# --- errors ----------------------------------------------------------------------------------------------------------

LOG = """INFO 11-21 03:00:01 [api_server.py:100] vLLM API server version 0.19.1
(EngineCore pid=231) ERROR 11-21 03:00:02 [core.py:866] EngineCore failed to start.
(EngineCore pid=231) Process EngineCore:
(EngineCore pid=231) Traceback (most recent call last):
(EngineCore pid=231)   File "/usr/lib/python3.12/process.py", line 314, in _bootstrap
(EngineCore pid=231)     self.run()
(EngineCore pid=231) ValueError: no memory
(EngineCore pid=231)
(EngineCore pid=231) During handling of the above exception, another exception occurred:
(EngineCore pid=231) Traceback (most recent call last):
(EngineCore pid=231)   File "/usr/lib/python3.12/process.py", line 1
(EngineCore pid=231) RuntimeError: gone
INFO 11-21 03:00:03 [launcher.py:1] well
  indented, and no part of a traceback
{"status": 502, "path": "/v1"}
{"status": 200, "path": "/v1"}
2026/11/21 03:00:04 [error] 31#31: *7 connect() failed
2026/11/21 03:00:04 [warn] 31#31: member x is down
time=2026-11-21T03:00:05Z level=ERROR source=routes.go:1 msg="no"
time=2026-11-21T03:00:05Z level=INFO source=routes.go:1 msg="ERROR is only a word here"
[GIN] 2026/11/21 - 03:00:00 | 500 |  1.2s | 192.168.31.2 | POST "/api/embed"
[GIN] 2026/11/21 - 03:00:00 | 200 |  1.2s | 192.168.31.2 | POST "/api/embed"
"""


def test_errors_and_their_tracebacks() -> None:
    errors = Errors()
    left_out = [text for text in LOG.splitlines() if not errors.keep(text)]
    assert [text[:30] for text in left_out] == [
        "INFO 11-21 03:00:01 [api_serve",
        "(EngineCore pid=231) Process E",
        "(EngineCore pid=231)",
        "INFO 11-21 03:00:03 [launcher.",
        "  indented, and no part of a t",
        '{"status": 200, "path": "/v1"}',
        "2026/11/21 03:00:04 [warn] 31#",
        "time=2026-11-21T03:00:05Z leve",
        "[GIN] 2026/11/21 - 03:00:00 | ",
    ]


# --- over SSH --------------------------------------------------------------------------------------------------------


def source(folder: Path, port: int, docker: str) -> tuple[Source, Login]:
    (folder / "docker").write_text(f"#!/bin/sh\ncd {folder}\n{docker}\n")
    login = Login(lambda: connect(port), ("ssh", "box"))
    return Source("x@box", "x", Shell(login)), login


def test_a_log_is_read_to_its_end(tmp_path: Path) -> None:
    said: list[str] = []
    with ssh_server(tmp_path) as port:
        one, _ = source(tmp_path, port, f"echo '{time_of(1)}' \"$@\"; printf '%s err' '{time_of(2)}' >&2")
        found = list(once(one, Part("10m", 7), said.append))
        one.shell.close()
    assert found == [line(1, "x@box", "logs --timestamps --since 10m --tail 7 x"), line(2, "x@box", "err")]
    assert said == []


def test_a_container_that_is_not_there(tmp_path: Path) -> None:
    said: list[str] = []
    with ssh_server(tmp_path) as port:
        one, _ = source(tmp_path, port, "echo 'No such container: x' >&2; exit 1")
        assert list(once(one, Part(), said.append)) == []
        one.shell.close()
    assert said == ["x@box: No such container: x"]


#: First start: two lines of one time. Then it is down, then up; what it is asked for again begins with a line that came already.
_RESTARTED = f"""
case "$*" in
*"--tail 5"*) echo '{time_of(1)} a'; echo '{time_of(2)} b'; echo '{time_of(2)} b';;
*--since*) echo '{time_of(2)} b'; echo '{time_of(2)} b'; echo '{time_of(2)} c'; echo '{time_of(3)} d'; sleep 60;;
inspect*) if [ -e looked ]; then echo 'running 0'; else echo 'exited 137'; touch looked; fi;;
esac
"""


def test_following_survives_a_restart_and_shows_every_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_POLL_SECONDS", 0.0)
    said: list[str] = []
    came: list[Line] = []
    enough = threading.Event()

    def put(one: Line) -> None:
        came.append(one)
        if one.text == "d":
            enough.set()

    with ssh_server(tmp_path) as port:
        one, login = source(tmp_path, port, _RESTARTED)
        threading.Thread(target=Follower(one, login, Part("", 5), put, said.append).run, daemon=True).start()
        assert enough.wait(20)
        one.shell.close()
    assert [each.text for each in came] == ["a", "b", "b", "c", "d"]
    assert said[:2] == ["x@box: it is exited, exit code 137; waiting for its next start", "x@box: runs again"]


def test_following_survives_a_lost_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_AGAIN_SECONDS", 0.0)
    said: list[str] = []
    first, again = threading.Event(), threading.Event()
    log = f"echo '{time_of(1)} a'; case \"$*\" in *--since*) echo '{time_of(2)} b';; esac; sleep 60"
    with ssh_server(tmp_path) as port:
        one, login = source(tmp_path, port, log)
        put = {"a": first.set, "b": again.set}
        follower = Follower(one, login, Part(), lambda each: put[each.text](), said.append)
        threading.Thread(target=follower.run, daemon=True).start()
        assert first.wait(20)
        one.shell.close()
        assert again.wait(20)
        assert "trying again" in said[0]
        assert said[1] == "x@box: connected again"


def test_nothing_is_left_behind_when_a_follower_is_gone(tmp_path: Path) -> None:
    """The command on the host ends with its input, also when the log is silent."""
    ended = tmp_path / "ended"
    with ssh_server(tmp_path) as port:
        one, _ = source(
            tmp_path, port, f"trap 'touch {ended}; exit' TERM; echo '{time_of(1)} a'; while :; do sleep 0.05; done"
        )
        with one.shell.stream(f"sh -c {shlex.quote(remote.follow('x', Part()))}") as channel:
            assert channel.recv(100)
        for _ in range(400):
            if ended.exists():
                break
            threading.Event().wait(0.05)
        assert ended.exists()
        one.shell.close()


# --- for people ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminal", "colour", "shown"),
    [
        (False, False, "2026-11-21T03:00:01.000Z a         | \x1b[32mloading\r10 %\r\x1b[2K\x1b[32m100 %\r"),
        (True, False, "2026-11-21T03:00:01.000Z a         | 100 %"),
        (True, True, "\x1b[36m2026-11-21T03:00:01.000Z a         |\x1b[0m \x1b[32m100 %\x1b[0m"),
    ],
    ids=["pipe", "NO_COLOR", "terminal"],
)
def test_a_line_in_a_pipe_is_as_it_came_and_on_a_terminal_harmless(terminal: bool, colour: bool, shown: str) -> None:
    text = "\x1b[32mloading\r10 %\r\x1b[2K\x1b[32m100 %\r"
    assert Prefixes(["a", "long_name"], terminal=terminal, colour=colour).shown(line(1, "a", text)) == shown


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\x1b[1;31mred\x1b[0m \x1b[38:5:9mtoo\x1b[m", "\x1b[1;31mred\x1b[0m \x1b[38:5:9mtoo\x1b[m"),
        ("a\x1b[2J\x1b[3;4Hb\x1b[?1049hc\x1b[>4;2md\x1b[!pe", "abcde"),
        ("a\x1bcb\x1b7c\x1b(0d\x1b#8e", "abcde"),
        ("a\x1b]0;title\x07b\x1b]52;c;eA==\x1b\\c", "abc"),
        ("a\x1bP$q\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e", "abcde"),
        ("a\x9b2Jb\x9d0;title\x9cc\x90q\x9cd\x85e\x84", "abcde"),
        ("a\x1b\x00[2Jb\x1b\x1b[2Jc\x1b", "a[2Jbc"),
        ("a\x1bPnever ends", "anever ends"),
        ("\x1b[31\x07mx \x1b[", "31mx "),
        ("tab\tcafé 日本\x7f", "tab\tcafé 日本"),
    ],
)
def test_only_colours_reach_a_terminal(text: str, clean: str) -> None:
    shown = Prefixes(["a"], terminal=True, colour=True).shown(line(1, "a", text))
    assert shown == f"\x1b[36m2026-11-21T03:00:01.000Z a |\x1b[0m {clean}\x1b[0m"


@given(st.text(alphabet="\x1b\x00\x07\x18\x9b\x9c\x90\x85[]\\P0;:?>mHJ( a", max_size=40))
def test_what_is_left_begins_no_sequence_but_a_colour(text: str) -> None:
    shown = Prefixes(["a"], terminal=True, colour=True).shown(line(1, "a", text))
    assert not re.search(r"\x1b(?!\[[0-9;:]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]", shown)
    plain = Prefixes(["a"], terminal=True, colour=False).shown(line(1, "a", text))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", plain)


def test_times() -> None:
    assert [remote.since(text) for text in ("90s", "1h30m", "2d")] == ["90s", "1h30m", "48h"]
    assert remote.since("2026-11-28T03:00:00Z") == "2026-11-28T03:00:00Z"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(since="yesterday"), "give a length of time"),
        (Wanted(grep="("), "no regular expression"),
        (Wanted(["nonsense"]), "No host has nonsense; there are"),
        (Wanted(["bge_nginx"], ["llm"]), "not on the hosts that --limit names"),
    ],
)
def test_what_cannot_be_begun(wanted: Wanted, words: str, tmp_path: Path) -> None:
    said = tmp_path / "stderr"
    arguments = (Path("inventory.py"), (), wanted)
    assert call(Call("stoker.logs.command", "logs", arguments, cwd=PROJECT, stderr=said)) == Result(0, 3)
    assert words in said.read_text()

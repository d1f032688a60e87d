"""The doctor's part of the probe, executed by dash with stand-ins of the host's programs, and what is understood of its output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.states import fleet_and_host
from support.stubs import Stubs

from stoker.doctor.live import CardsSeen, End, FileSystem, moment, parse
from stoker.doctor.probe import live_script, watched_directories, whole_script
from stoker.facts.state import parse as parse_state

ID = "3f" * 32
LOG = "first line\n\tCUDA error: ü\n"
PS = '{"models":[{"name":"bge-m3:latest",\n"size":5,"size_vram":5}]}'

#: `docker` as the script calls it. bge_1 does not run and bge_0's log names its card.
DOCKER = f"""case "$1 $2" in
"exec ollama_bge_0") echo 'GPU 0: Tesla P40 (UUID: GPU-00000000-aa)'; echo 'GPU 1: Tesla P40 (UUID: GPU-00000001-bb)';;
"exec ollama_bge_1") echo 'Error response from daemon: container {ID} is not running' >&2; exit 1;;
"inspect -f") case $3 in
  *ExitCode*) shift 3; for n; do echo '{{"name":"/'$n'","exit":137,"oom":true,"error":"","finished":"2026-11-20T10:00:00.1Z"}}'; done;;
  *RestartCount*) echo; echo /ollama_bge_1; echo;;
  *) echo 2026-11-20T10:00:00Z;; esac;;
"logs --since") test "$3" = 2026-11-20T10:00:00Z && echo first && echo 'level=INFO msg="inference compute" library=CUDA';;
"logs --tail") printf '{LOG}';;
*) exit 9;; esac"""

SMI = """case $2 in
--query-gpu=*) printf '0, Enabled\\n1, Disabled\\n';;
*) exit 9;; esac"""


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    found = Stubs(tmp_path / "stubs")
    found.add("docker", DOCKER)
    found.add("nvidia-smi", SMI)
    found.add("curl", f"printf '{PS}\\n'")
    return found


def test_everything_is_found_out(stubs: Stubs) -> None:
    _, host = fleet_and_host("embedding")
    done = stubs.run(live_script(host))
    assert (done.returncode, done.stderr) == (0, "")
    live = parse(done.stdout.splitlines())
    assert live.ends == dict.fromkeys(
        ("ollama_bge_0", "ollama_bge_1", "bge_nginx"), End(137, True, "", "2026-11-20T10:00:00.1Z")
    )
    assert live.cards_seen["ollama_bge_0"].uuids == {"GPU-00000000-aa", "GPU-00000001-bb"}
    assert live.cards_seen["ollama_bge_1"] == CardsSeen(1, f"Error response from daemon: container {ID} is not running")
    assert json.loads(live.resident["ollama_bge_1"]) == json.loads(PS)
    assert "library=CUDA" in live.compute_lines["ollama_bge_0"]
    assert live.logs == {"ollama_bge_1": LOG}
    assert live.persistence == {0: True, 1: False}
    assert any(one.mount == "/" and one.used > 0 and one.available > 0 for one in live.file_systems)
    assert len({one.mount for one in live.file_systems}) == len(live.file_systems)


def test_a_machine_without_any_of_it_says_nothing(tmp_path: Path) -> None:
    bare = Stubs(tmp_path / "bare", path="")
    bare.link("df", "sort", "tail", "timeout", "tr", "cut", "grep", "printf")
    _, host = fleet_and_host()
    live = parse(bare.run(live_script(host)).stdout.splitlines())
    assert (live.ends, live.resident, live.persistence, live.logs) == ({}, {}, {}, {})
    assert all(seen.status == 127 for seen in live.cards_seen.values())
    assert live.file_systems


def test_the_state_of_the_host_is_read_from_the_same_output(stubs: Stubs) -> None:
    fleet, host = fleet_and_host("embedding")
    done = stubs.run(whole_script(fleet, host))
    assert parse_state(done.stdout.splitlines()).uid >= 0
    assert parse(done.stdout.splitlines()).persistence == {0: True, 1: False}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("100 300 1000 10 /data/my models", FileSystem("/data/my models", 100, 300, 1000, 10)),
        ("100 300 - - /btrfs", FileSystem("/btrfs", 100, 300, 0, 0)),
        ("100 300  0    0 /fat", FileSystem("/fat", 100, 300, 0, 0)),
    ],
)
def test_rows_of_df(row: str, found: FileSystem) -> None:
    assert parse(["@@stoker live", f"disk\t{row}"]).file_systems == [found]


def test_lines_of_other_sections_and_broken_ones_are_skipped() -> None:
    lines = [
        "banner\t1",
        "@@stoker live",
        "end\tnonsense",
        "disk\t5",
        "persistence\tx",
        "cards\ta",
        "",
        "@@stoker os",
        "holder\t7\tx",
    ]
    live = parse(lines)
    assert (live.ends, live.file_systems, live.persistence, live.cards_seen) == ({}, [], {}, {})


def test_dockers_times() -> None:
    assert moment("1970-01-01T00:01:00.999999999Z") == 60
    assert moment("0001-01-01T00:00:00Z") is None
    assert moment("") is None


def test_every_directory_that_stoker_makes_is_watched() -> None:
    _, host = fleet_and_host()
    watched = watched_directories(host)
    assert {"/", "/var/lib/docker", "/opt/stoker", "/data/projects/models"} <= set(watched)
    assert all(re.fullmatch(r"/[\w/.-]*", path) for path in watched)

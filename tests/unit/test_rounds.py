"""All hosts asked at once: one that is silent delays nobody, one that is lost is tried again."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import paramiko
from smoke_sshd import connect, ssh_server
from support.fleet import EMBEDDING, LLM, make_fleet

from stoker.operate.rounds import Rounds
from stoker.smoke.ssh import AccessError, Login, Shell
from stoker.spec.fleet import Host

HOSTS = make_fleet().hosts


def say(host: Host, shell: Shell) -> str:
    return f"{host.name}: {shell.run('echo well').strip()}"


def lost(host: Host, reason: str) -> str:
    return f"{host.name} lost: {reason}"


def test_a_host_that_takes_the_connection_and_stays_silent(tmp_path: Path) -> None:
    with ssh_server(tmp_path) as port, socket.create_server(("127.0.0.1", 0)) as silent:
        access = {
            LLM: Login(lambda: connect(silent.getsockname()[1]), ("ssh", LLM)),
            EMBEDDING: Login(lambda: connect(port), ("ssh", EMBEDDING)),
        }
        rounds = Rounds(HOSTS, access, say, lost, limit_seconds=2.0)
        seconds = []
        for _ in range(2):
            begun = time.monotonic()
            first, second = rounds.round()
            seconds.append(time.monotonic() - begun)
            assert first.startswith(f"{LLM} lost: no answer within 2 s")
            assert second == f"{EMBEDDING}: well"
        assert seconds[1] < seconds[0], "it is waited for once"
        rounds.close()


def test_a_lost_connection_is_made_anew_and_a_good_one_is_kept(tmp_path: Path) -> None:
    made: list[paramiko.SSHClient] = []
    with ssh_server(tmp_path) as port:

        def again() -> paramiko.SSHClient:
            made.append(connect(port))
            return made[-1]

        rounds = Rounds(HOSTS[1:], {EMBEDDING: Login(again, ("ssh",))}, say, lost, limit_seconds=10)
        assert [rounds.round() for _ in range(2)] == [[f"{EMBEDDING}: well"]] * 2
        assert len(made) == 1
        transport = made[0].get_transport()
        assert transport is not None
        transport.close()
        assert rounds.round()[0].startswith(f"{EMBEDDING} lost: ")
        for _ in range(200):  # it is asked again, and not waited for
            found = rounds.round()[0]
            if found == f"{EMBEDDING}: well":
                break
            assert found.startswith(f"{EMBEDDING} lost: ")
            time.sleep(0.02)
        assert found == f"{EMBEDDING}: well"
        rounds.close()


def test_a_host_that_is_not_reached_by_ssh() -> None:
    def never(host: Host, shell: Shell) -> str:
        raise AccessError("not", "reached")

    rounds = Rounds(HOSTS[:1], {}, never, lost)
    assert rounds.round() == [f"{LLM} lost: the inventory reaches it neither by SSH nor as @local"]
    rounds.close()

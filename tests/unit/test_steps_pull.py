"""A pull's figures: the script with a real script(1) and perl, and a docker that draws as the real one does."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stubs import Stubs

from stoker.steps.pull import Pulled, pull_script, read_pulled

IMAGE = "vllm/vllm-openai:v0.19.1"

# Written after docker/cli 28's drawing (jsonmessage): the cursor goes up to the layer's line, deletes it, and comes back.
LAYERS = r"printf 'v0.19.1: Pulling from x\r\naaaaaaaaaaaa: Pulling fs layer \r\nbbbbbbbbbbbb: Already exists \r\n'"


def draw(text: str) -> str:
    return rf"printf '\033[2A\033[2K\raaaaaaaaaaaa: {text}\r\033[2B'"


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path / "stubs")


def figures(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [pulled.words for line in done.stdout.splitlines() if (pulled := read_pulled(line))]


def test_bytes_and_layers_are_added_up(stubs: Stubs) -> None:
    steps = [LAYERS, draw("Downloading [==>    ]  300.5MB/1.2GB"), draw("Downloading [====> ]  1.1GB/1.2GB")]
    steps += [draw("Verifying Checksum "), draw("Extracting [=>   ]  5MB/1.2GB"), draw("Pull complete ")]
    stubs.add("docker", "test -t 1 || exit 9\n" + "\n".join(steps) + r"; printf 'Status: Downloaded newer image\r\n'")
    done = stubs.run(pull_script(IMAGE))
    assert done.returncode == 0, done
    assert figures(done)[-4:] == [
        "0.30 of 1.20 GB, 1 of 2 layers",
        "1.10 of 1.20 GB, 1 of 2 layers",
        "1.20 of 1.20 GB, 1 of 2 layers, unpacking",
        "1.20 of 1.20 GB, 2 of 2 layers",
    ]
    assert "Status: Downloaded newer image" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_failure_keeps_its_words_and_its_status(stubs: Stubs) -> None:
    stubs.add("docker", f"{LAYERS}; echo 'Error response from daemon: manifest unknown' >&2; exit 7")
    done = stubs.run(pull_script(IMAGE))
    assert done.returncode == 7
    assert done.stdout.splitlines()[-1] == "Error response from daemon: manifest unknown"


def test_a_figure_comes_while_the_pull_goes_on(stubs: Stubs, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    stubs.add("docker", f"{LAYERS}; {draw('Downloading [==>    ]  300MB/1.2GB')}; read x <{go}")
    environment = {"PATH": f"{stubs.folder}:/usr/bin:/bin"}
    with subprocess.Popen(
        ["sh", "-c", pull_script(IMAGE)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        limit = threading.Timer(30, process.kill)
        limit.start()
        assert process.stdout
        told: Iterator[str] = iter(process.stdout)
        assert any("0.30 of 1.20 GB" in line for line in told)
        go.write_text("go\n")
        assert process.wait() == 0
        limit.cancel()


def test_reading() -> None:
    assert read_pulled("pulled 1.20 of 3.00 GB, 5 of 12 layers") == Pulled("1.20 of 3.00 GB, 5 of 12 layers", 40.0)
    assert read_pulled("pulled 0.00 of 0.00 GB, 0 of 12 layers") == Pulled("0.00 of 0.00 GB, 0 of 12 layers", None)
    assert read_pulled("v0.19.1: Pulling from vllm/vllm-openai") is None

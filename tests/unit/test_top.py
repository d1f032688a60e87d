"""`stoker top`: what is read of cards and containers, and how it is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.fleet import EMBEDDING, LLM, make_fleet

from stoker.facts.state import SECTION
from stoker.operate.top import HostTop, as_data, parse, script
from stoker.operate.top_view import lines

FLEET = make_fleet()
HOST = FLEET.host(LLM)
ID = "ab" * 32


def stats(at: str, cpu: int, memory: dict[str, Any]) -> str:
    """As Docker 28 answers: it does not say which container it is."""
    return json.dumps(
        {
            "read": f"2026-11-21T03:00:0{at}Z",
            "cpu_stats": {"cpu_usage": {"total_usage": cpu}},
            "memory_stats": memory,
        }
    )


MEMORY = {"usage": 900 << 20, "stats": {"inactive_file": 100 << 20}}
PRINTED = [
    f"{SECTION}cards",
    "0, GPU-0, Tesla V100-SXM2-32GB, 87, 30000, 32768, 61, 210.55, 300.00",
    "1, GPU-1, Tesla P40, [N/A], 0, 23040, 30, [N/A], 250.00",
    "rc=0",
    f"{SECTION}gpu-processes",
    "GPU-0, 77, VLLM::EngineCore, 14000",
    "GPU-0, 5, python, and more, 900",
    f"{SECTION}gpu-containers",
    f"77\t0::/system.slice/docker-{ID}.scope",
    "5\t0::/user.slice",
    f"{SECTION}running",
    f"{ID}/vllm_qwen_gpu2",
    f"{'cd' * 32}/vllm_nginx",
    "",
    f"{SECTION}stats",
    f"vllm_qwen_gpu2\t{stats('1.5', 1_000_000_000, MEMORY)}",
    f"vllm_nginx\t{stats('1', 0, {})}",
    "vllm_llama_gpu0_0\t",
    f"vllm_qwen_gpu2\t{stats('2.000000000', 1_750_000_000, MEMORY)}",
    f"vllm_nginx\t{stats('2', 0, {})}",
]


def test_what_is_read() -> None:
    found = parse(HOST, PRINTED)
    first, second = found.cards
    assert (first.utilization_percent, first.power_watts, first.temperature_celsius) == (87, 210.55, 61)
    assert [(one.pid, one.instance, one.name) for one in first.processes] == [
        (77, "vllm_qwen_gpu2", "VLLM::EngineCore"),
        (5, "", "python, and more"),
    ]
    assert (second.utilization_percent, second.power_watts, second.processes) == (None, None, ())
    use, uncounted = found.containers
    assert (use.name, use.cpu_percent, use.memory_mib) == ("vllm_qwen_gpu2", 150.0, 800.0)
    assert (uncounted.name, uncounted.cpu_percent, uncounted.memory_mib) == ("vllm_nginx", None, None)


def test_how_it_is_shown() -> None:
    text = [line.plain for line in lines([parse(HOST, PRINTED), HostTop(EMBEDDING, "no SSH connection")])]
    assert re.sub(r" +", " ", "\n".join(text)).splitlines() == [
        LLM,
        " GPU 0 Tesla V100-SXM2-32GB 87 % 29.3 of 32.0 GiB 61 °C 211 of 300 W vllm_qwen_gpu2 13.7, python, and more (process 5) 0.9",
        " GPU 1 Tesla P40 ? % 0.0 of 22.5 GiB 30 °C ? of 250 W nobody",
        " vllm_qwen_gpu2 CPU 150 % memory 800 MiB",
        " vllm_nginx CPU ? % memory ? MiB",
        f"{EMBEDDING} no SSH connection",
    ]


@pytest.mark.parametrize(
    "printed", [[f"{SECTION}cards", "couldn't communicate with the NVIDIA driver", "rc=9"], [], ["garbage"]]
)
def test_cards_that_tell_nothing(printed: list[str]) -> None:
    found = parse(HOST, printed)
    assert found.error
    assert found.cards == ()


def test_a_container_seen_once_has_no_processor_use() -> None:
    (use,) = parse(HOST, [f"{SECTION}running", f"{ID}/x", f"{SECTION}stats", f"x\t{stats('1', 5, MEMORY)}"]).containers
    assert (use.cpu_percent, use.memory_mib) == (None, 800.0)


def test_the_script_is_shell_and_leaves_nothing_behind(tmp_path: Path) -> None:
    programs = {
        "nvidia-smi": "echo '0, GPU-0, V100, 1, 2, 3, 4, 5, 6'",
        "curl": f"case \"$*\" in *vllm_qwen_gpu2/stats*) echo '{stats('1', 1, MEMORY)}';; esac",
        "docker": f"echo {ID}/vllm_qwen_gpu2",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", script(HOST).replace("/run/stoker-top", f"{tmp_path}/stoker-top")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = parse(HOST, done.stdout.splitlines())
    assert (found.error, len(found.cards)) == ("", 1)
    assert [(use.name, use.memory_mib) for use in found.containers] == [("vllm_qwen_gpu2", 800.0)]
    assert list(tmp_path.glob("stoker-top*")) == []


def test_every_field_of_the_json_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(\w+)`", text.partition('<a id="top-json"></a>')[2].partition("\n## ")[0]))

    def names(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(names, value.values()))
        return set().union(*map(names, value)) if isinstance(value, list | tuple) else set()

    assert names(as_data([parse(HOST, PRINTED)])) <= documented

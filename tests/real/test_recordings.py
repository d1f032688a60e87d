"""The files that were made from the released vLLM are what its parser says now. How to make them anew stands in the programs' first lines."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from support.description import PROJECT

from lab.real.programs import run_program
from lab.real.released import fetch
from stoker.spec import vllm

VLLM = PROJECT / "lab/doubles/vllm"
ARGUMENTS = VLLM / "lab_vllm/arguments.json"
RECORDED = VLLM / "recorded_cli.json"


def test_the_arguments_of_the_double_and_of_the_description(released: Path) -> None:
    made = run_program(VLLM / "extract_arguments.py", released=released)
    assert made == ARGUMENTS.read_text(encoding="utf-8")
    allowed = runpy.run_path(str(PROJECT / "scripts/vllm-arguments"), run_name="imported")["allowed"]()
    assert allowed == vllm.known()


def test_what_it_says_to_command_lines(released: Path) -> None:
    # Only the questions go there; an answer that stood in the file could not come back.
    cases = [{"arguments": case["arguments"]} for case in json.loads(RECORDED.read_text(encoding="utf-8"))]
    made = run_program(VLLM / "record_cli.py", released=released, stdin=json.dumps(cases))
    assert made == RECORDED.read_text(encoding="utf-8")


def test_the_release_is_fetched_once(released: Path) -> None:
    before = (released / "complete.json").stat().st_mtime_ns
    assert fetch(vllm.known()["version"], released.parent) == released
    assert (released / "complete.json").stat().st_mtime_ns == before

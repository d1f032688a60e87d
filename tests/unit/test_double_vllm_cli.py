"""The vLLM double's command line against what the release's own parser said (lab/doubles/vllm/recorded_cli.json)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

VLLM = Path(__file__).resolve().parents[2] / "lab" / "doubles" / "vllm"
CASES = json.loads((VLLM / "recorded_cli.json").read_text())


@pytest.fixture(scope="module")
def command_line() -> Iterator[Any]:
    """The double's argument module."""
    sys.path.insert(0, str(VLLM))
    from lab_vllm import arguments

    yield arguments
    sys.path.remove(str(VLLM))


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case["arguments"]))
def test_same_verdict_same_words(command_line: Any, case: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code, text = 0, ""
    try:
        command_line.parse(case["arguments"])
    except SystemExit as end:
        code = int(end.code or 0)
        found = re.search(r"^vllm[^\n]*: error: [\s\S]*", capsys.readouterr().err, re.MULTILINE)
        text = found.group(0).strip() if found else ""
    except (ValueError, TypeError, OSError, IndexError) as error:
        code, text = 1, f"{type(error).__name__}: {error}"
    assert (code, re.sub(r" at 0x[0-9a-f]+>", ">", text)) == (case["code"], case["text"])


def test_every_argument_of_the_release_is_known(command_line: Any) -> None:
    recorded = json.loads((VLLM / "lab_vllm" / "arguments.json").read_text())
    assert recorded["version"] == "0.19.1"
    assert len(command_line.defaults()) == len(recorded["arguments"]) > 200

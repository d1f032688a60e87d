"""Questions to vLLM's own parser (lab/real/parse_commands.py), and its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.description import PROJECT

from lab.real.programs import run_program
from stoker.spec.vllm import known

PINNED: str = known()["version"]


@dataclass(frozen=True)
class Verdict:
    accepted: bool
    error: str | None
    warnings: tuple[str, ...]
    values: Mapping[str, Any]  #: of every argument, given or not
    given: frozenset[str]  #: arguments whose value is not the default


@dataclass(frozen=True)
class Answer:
    version: str
    verdicts: Mapping[str, Verdict]


def ask(released: Path | None, lines: Mapping[str, Sequence[str]]) -> Answer:
    """The verdict on each line (`["serve", ...]`) by name, of the released parser or of the installed one."""
    text = run_program(PROJECT / "lab/real/parse_commands.py", released=released, stdin=json.dumps(lines))
    answer = json.loads(text)
    assert set(answer["results"]) == set(lines)
    verdicts = {
        name: Verdict(
            result["accepted"],
            result["error"],
            tuple(result["warnings"]),
            answer["defaults"] | result["parsed"],
            frozenset(result["parsed"]),
        )
        for name, result in answer["results"].items()
    }
    return Answer(answer["version"], verdicts)


def ask_in_parts(released: Path | None, lines: Mapping[str, Sequence[str]], parts: int = 2) -> Answer:
    """The same for many lines, by so many parsers at once: each reads one line after another."""
    names = list(lines)
    groups = [{name: lines[name] for name in names[part::parts]} for part in range(parts)]
    with ThreadPoolExecutor(parts) as pool:
        answers = list(pool.map(lambda group: ask(released, group), groups))
    return Answer(answers[0].version, {name: verdict for one in answers for name, verdict in one.verdicts.items()})


def same(described: object, parsed: object) -> bool:
    """Whether the parser understood a described value as it was meant."""
    if isinstance(parsed, list) and not isinstance(described, list):
        return len(parsed) == 1 and same(described, parsed[0])  # an argument of several values, given one
    if isinstance(described, dict):
        # Configuration objects come with their other fields.
        return isinstance(parsed, dict) and all(same(value, parsed.get(key)) for key, value in described.items())
    if isinstance(parsed, str):
        return parsed == str(described)
    return parsed == described and isinstance(parsed, bool) == isinstance(described, bool)

"""The doctor's words: lines for people, JSON for programs, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from stoker.doctor.checks import Result
from stoker.doctor.look import Verdict

ALL_WELL, FINDINGS, COULD_NOT_CHECK = 0, 1, 2

_WORDS: dict[Verdict, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "finding": ("FINDING", "bold red"),
    "unknown": ("UNKNOWN", "bold yellow"),
}


def exit_status(results: Sequence[Result]) -> int:
    """What could not be checked counts more than a finding: nobody knows what is behind it."""
    verdicts = {result.verdict for result in results}
    return COULD_NOT_CHECK if "unknown" in verdicts else FINDINGS if "finding" in verdicts else ALL_WELL


def as_json(results: Sequence[Result]) -> str:
    checks = [
        {
            "host": result.host,
            "name": result.name,
            "ok": result.verdict == "ok",
            "detail": f"could not be checked: {result.detail}" if result.verdict == "unknown" else result.detail,
            "fix": result.fix,
        }
        for result in results
    ]
    return json.dumps({"ok": all(check["ok"] for check in checks), "checks": checks}, indent=2)


def show(results: Sequence[Result], seconds: float, console: Console) -> None:
    """A line for each check; a finding's detail and fix stand below it. Then the sum."""
    width = max(len(word) for word, _ in _WORDS.values())
    hosts = max((len(result.host) for result in results), default=0)
    names = max((len(result.name) for result in results), default=0)
    for result in results:
        word, colour = _WORDS[result.verdict]
        begin = f"[{colour}]{word:<{width}}[/]  {escape(f'{result.host:<{hosts}}  {result.name:<{names}}')}"
        if result.verdict == "ok":
            console.print(f"{begin}  {escape(result.detail)}".rstrip(), soft_wrap=True)
            continue
        console.print(begin.rstrip(), soft_wrap=True)
        console.print(f"{'':<{width}}    {escape(result.detail)}", soft_wrap=True)
        if result.fix:
            console.print(f"{'':<{width}}    fix: {escape(result.fix)}", soft_wrap=True)
    console.print(summary(results, seconds), soft_wrap=True)


def summary(results: Sequence[Result], seconds: float) -> str:
    """``38 checks of 2 hosts in 1.6 s: all well``."""
    counts = {verdict: sum(result.verdict == verdict for result in results) for verdict in _WORDS}
    checks = len({(result.host, result.name) for result in results})
    hosts = len({result.host for result in results})
    found, unknown = counts["finding"], counts["unknown"]
    outcome = [
        *([f"{found} finding{'s' if found > 1 else ''}"] if found else []),
        *([f"{unknown} could not be checked"] if unknown else []),
    ]
    about = f"{checks} check{'s' if checks != 1 else ''} of {hosts} host{'s' if hosts != 1 else ''} in {seconds:.1f} s"
    return f"{about}: {', '.join(outcome) or 'all well'}"

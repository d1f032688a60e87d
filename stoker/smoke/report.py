"""The outcome for people (a table, and every failure in full) and for machines (JUnit XML, JSON)."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console
from rich.markup import escape

from stoker.smoke.check import Result, Status
from stoker.smoke.xmltext import xml_text

#: Characters for what was found: on a narrow terminal, and where the table goes to a file.
_LEAST_ROOM, _PLAIN_ROOM = 30, 200

_COLOURS: dict[Status, str] = {"pass": "green", "fail": "bold red", "skip": "yellow"}


@dataclass(frozen=True)
class Report:
    """Every result, in the order of the plan."""

    results: tuple[Result, ...]
    started: datetime
    #: Wall time of the whole smoke.
    seconds: float

    def of(self, status: Status) -> list[Result]:
        return [result for result in self.results if result.status == status]

    @property
    def passed(self) -> bool:
        """Everything passed that was not skipped, and something did: nothing checked is nothing proven."""
        return not self.of("fail") and bool(self.of("pass"))


def show(report: Report, console: Console, verbose: bool = False) -> None:
    """The table, the failures in full, the sum. ``verbose`` adds every command line."""
    _show_table(report, console)
    for alike in _alike(report.of("fail")):
        show_failure(alike, console)
    if verbose:
        console.print("\n[bold]What ran[/bold]")
        for result in report.results:
            if result.commands:
                console.print(f"[dim]# {escape(result.check.id)}[/dim]", soft_wrap=True, highlight=False)
                _show_commands(result, console, indent="")
    console.print(f"\n{summary(report)}", highlight=False)


def summary(report: Report) -> str:
    """One line: ``57 checks in 6.2 s: all passed``."""
    passed, failed, skipped = (len(report.of(status)) for status in ("pass", "fail", "skip"))
    if not failed and not skipped and passed:
        outcome = "all passed"
    else:
        outcome = ", ".join(
            f"{count} {word}" for count, word in ((failed, "failed"), (passed, "passed"), (skipped, "skipped")) if count
        )
    return f"{len(report.results)} checks in {report.seconds:.1f} s: {outcome or 'nothing was checked'}"


def show_failure(alike: Sequence[Result], console: Console) -> None:
    """Failures of one instance with one cause: what was expected, what came, what to do, and how to repeat each."""
    first = alike[0]
    what = (
        f"{first.check.subject} on {first.check.host}" if first.check.subject != first.check.host else first.check.host
    )
    names = ", ".join(result.check.name for result in alike)
    console.print(f"\n[bold red]FAILED[/bold red] {escape(f'{what}: {names}')}", highlight=False, soft_wrap=True)
    for label, text in (("expected", first.expected), ("found", first.found), ("do", first.remedy)):
        for number, line in enumerate(text.splitlines()):
            console.print(f"  {label if not number else '':<9} {escape(line)}", highlight=False, soft_wrap=True)
    if any(result.commands for result in alike):
        console.print("  repeat", highlight=False)
        for result in alike:
            _show_commands(result, console, indent="    ")


def as_junit(report: Report, title: str) -> str:
    """JUnit XML: a suite for each host, a case for each check. Every case carries its command lines."""
    root = ElementTree.Element(
        "testsuites", {"name": title, "time": f"{report.seconds:.3f}", **_counts(report.results)}
    )
    for host in dict.fromkeys(result.check.host for result in report.results):
        results = [result for result in report.results if result.check.host == host]
        seconds = sum(result.seconds for result in results)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            {
                "name": host,
                "timestamp": report.started.strftime("%Y-%m-%dT%H:%M:%S"),
                "time": f"{seconds:.3f}",
                **_counts(results),
            },
        )
        for result in results:
            _junit_case(suite, result)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def as_json(report: Report, title: str) -> str:
    """Everything that is known, as JSON. Times in seconds."""
    document = {
        "inventory": title,
        "started": report.started.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "passed": report.passed,
        "counts": {status: len(report.of(status)) for status in ("pass", "fail", "skip")},
        "checks": [
            {
                "id": result.check.id,
                "name": result.check.name,
                "host": result.check.host,
                "subject": result.check.subject,
                "status": result.status,
                "seconds": round(result.seconds, 3),
                "summary": result.summary,
                "commands": list(result.commands),
                **(
                    {"expected": result.expected, "found": result.found, "remedy": result.remedy}
                    if result.status == "fail"
                    else {}
                ),
            }
            for result in report.results
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _alike(failures: Sequence[Result]) -> list[list[Result]]:
    """Failures grouped by instance and cause. Times and ports in the text do not make another cause."""
    groups: dict[tuple[str, str, str, str], list[Result]] = {}
    for result in failures:
        key = (result.check.host, result.check.subject, re.sub(r"[\d.]+", "", result.found), result.remedy)
        groups.setdefault(key, []).append(result)
    return list(groups.values())


def _show_table(report: Report, console: Console) -> None:
    """One line for each check, by host. On a terminal what was found is cut to the line; elsewhere it is not."""
    subjects = {
        result.check.id: "" if result.check.subject == result.check.host else result.check.subject
        for result in report.results
    }
    width = max([len(subject) for subject in subjects.values()], default=0)
    names = max([len(result.check.name) for result in report.results], default=0)
    room = max(console.width - width - names - 17, _LEAST_ROOM) if console.is_terminal else _PLAIN_ROOM
    host = ""
    for result in report.results:
        if result.check.host != host:
            host = result.check.host
            console.print(f"\n[bold]{escape(host)}[/bold]", highlight=False)
        found = result.summary if len(result.summary) <= room else result.summary[: room - 1] + "…"
        row = f"{subjects[result.check.id]:<{width}}  {result.check.name:<{names}}  {result.seconds:6.2f} s  {found}".rstrip()
        colour = _COLOURS[result.status]
        console.print(f"[{colour}]{result.status}[/{colour}]  {escape(row)}", highlight=False, soft_wrap=True)


def _show_commands(result: Result, console: Console, indent: str) -> None:
    for command in result.commands:
        console.print(
            f"{indent}{escape(command)}", highlight=False, soft_wrap=True
        )  # soft_wrap: no line breaks in what is to be pasted


def _counts(results: Sequence[Result]) -> dict[str, str]:
    def count(status: Status) -> str:
        return str(sum(1 for result in results if result.status == status))

    return {"tests": str(len(results)), "failures": count("fail"), "errors": "0", "skipped": count("skip")}


def _junit_case(suite: ElementTree.Element, result: Result) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"{result.check.host}.{result.check.subject}",
        name=result.check.name,
        time=f"{result.seconds:.3f}",
    )
    if result.status == "fail":
        failure = ElementTree.SubElement(case, "failure", message=xml_text(result.summary))
        failure.text = xml_text(f"expected: {result.expected}\nfound: {result.found}\ndo: {result.remedy}")
    elif result.status == "skip":
        ElementTree.SubElement(case, "skipped", message=xml_text(result.summary))
    if result.commands:
        ElementTree.SubElement(case, "system-out").text = xml_text("\n".join(result.commands))

"""Table, JUnit XML, JSON."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime

from rich.console import Console

from stoker.smoke.check import Check, Result
from stoker.smoke.report import Report, as_json, as_junit, show, summary

LONG_COMMAND = "curl -q -sS http://127.0.0.1/v1/chat/completions -d '" + "x" * 200 + "'"


def check(name: str, host: str = "box") -> Check:
    return Check(name, host, "llama_0", lambda _: "")


RESULTS = (
    Result(check("models"), "pass", 0.021, "llama", ("curl -q http://a",)),
    Result(
        check("chat"),
        "fail",
        1.5,
        "HTTP 500 after 1.5 s: [oops]",
        (LONG_COMMAND,),
        "HTTP 200",
        "HTTP 500 after 1.5 s: [oops]\x1b\nsecond line",
        "read the log",
    ),
    Result(check("GPU", "other"), "skip", 0.0, "no SSH"),
)
REPORT = Report(RESULTS, datetime(2026, 11, 21, 3, 0, tzinfo=UTC), 2.25)


def shown(report: Report, verbose: bool = False) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=100, force_terminal=False), verbose)
    return out.getvalue()


def test_table() -> None:
    text = shown(REPORT)
    lines = text.splitlines()
    assert lines[1] == "box"
    assert lines[2].split() == ["pass", "llama_0", "models", "0.02", "s", "llama"]
    assert "[oops]" in text  # not taken for markup
    assert "skip" in text
    assert lines[-1] == "3 checks in 2.2 s: 1 failed, 1 passed, 1 skipped"


def test_a_failure_in_full_and_its_command_on_one_line() -> None:
    lines = shown(REPORT).splitlines()
    start = lines.index("FAILED llama_0 on box: chat")
    assert [line.strip() for line in lines[start + 1 : start + 5]] == [
        "expected  HTTP 200",
        "found     HTTP 500 after 1.5 s: [oops]\x1b",
        "second line",
        "do        read the log",
    ]
    assert f"    {LONG_COMMAND}" in lines


def test_failures_of_one_instance_with_one_cause_are_told_once() -> None:
    refused = [
        Result(
            check(name),
            "fail",
            0.1,
            "x",
            (f"curl {name}",),
            "HTTP 200",
            f"port 11401 after {number} ms: refused",
            "start it",
        )
        for number, name in enumerate(("models", "chat"))
    ]
    lines = shown(Report(tuple(refused), REPORT.started, 1.0)).splitlines()
    assert sum("expected  HTTP 200" in line for line in lines) == 1
    assert "FAILED llama_0 on box: models, chat" in lines
    assert lines[-4:-2] == ["    curl models", "    curl chat"]


def test_commands_of_passed_checks_only_when_asked() -> None:
    assert "curl -q http://a" not in shown(REPORT)
    assert "curl -q http://a" in shown(REPORT, verbose=True).splitlines()


def test_summary_when_all_passed() -> None:
    assert summary(Report(RESULTS[:1], REPORT.started, 1.0)) == "1 checks in 1.0 s: all passed"


def test_junit() -> None:
    root = ElementTree.fromstring(as_junit(REPORT, "inventory.py"))
    assert root.tag == "testsuites"
    assert (root.attrib["tests"], root.attrib["failures"], root.attrib["skipped"], root.attrib["errors"]) == (
        "3",
        "1",
        "1",
        "0",
    )
    box, other = root.findall("testsuite")
    assert (box.attrib["name"], box.attrib["tests"], box.attrib["failures"], box.attrib["timestamp"]) == (
        "box",
        "2",
        "1",
        "2026-11-21T03:00:00",
    )
    models, chat = box.findall("testcase")
    assert (models.attrib["classname"], models.attrib["name"], models.attrib["time"]) == (
        "box.llama_0",
        "models",
        "0.021",
    )
    assert models.findtext("system-out") == "curl -q http://a"
    failure = chat.find("failure")
    assert failure is not None
    assert failure.text is not None
    assert "second line" in failure.text
    assert "\N{REPLACEMENT CHARACTER}" in failure.text  # an escape character cannot be written in XML
    assert other.find("testcase/skipped") is not None


def test_json() -> None:
    document = json.loads(as_json(REPORT, "inventory.py"))
    assert document["passed"] is False
    assert document["inventory"] == "inventory.py"
    assert document["counts"] == {"pass": 1, "fail": 1, "skip": 1}
    passed, failed, skipped = document["checks"]
    assert passed["id"] == "box/llama_0/models"
    assert "expected" not in passed
    assert failed["remedy"] == "read the log"
    assert failed["commands"] == [LONG_COMMAND]
    assert skipped["status"] == "skip"

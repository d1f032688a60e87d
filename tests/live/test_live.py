"""The checks of `stoker smoke` as tests, one for each check, against the inventory that STOKER_INVENTORY names.

    STOKER_INVENTORY=inventory.py pytest tests/live

All checks run at once, when the first test asks; the others read their result. Not for pytest-xdist: each worker would run them all.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import pytest
from rich.console import Console

if "STOKER_INVENTORY" not in os.environ:
    pytest.skip("needs a fleet: set STOKER_INVENTORY to an inventory file", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gevent's word that pytest has imported ssl already; nothing here uses it
    import pyinfra_cli  # noqa: F401  (before all that uses threads: it patches the standard library for gevent)

from stoker.inventory import group_data_directories
from stoker.smoke.check import Result
from stoker.smoke.command import prepare
from stoker.smoke.report import show_failure
from stoker.smoke.run import run

INVENTORY = Path(os.environ["STOKER_INVENTORY"])
FLEET, PLAN = prepare(INVENTORY, group_data_directories())


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """Result of every check by its id. Fails when nothing answers: tests of nothing prove nothing."""
    report = run(PLAN)
    if not report.of("pass"):
        hosts = ", ".join(host.name for host in FLEET.hosts)
        pytest.fail(
            f"nothing answers on any host of {INVENTORY} ({hosts}): is it deployed, and can this machine reach it?",
            pytrace=False,
        )
    return {result.check.id: result for result in report.results}


@pytest.mark.parametrize("check", [check.id for check in PLAN.checks])
def test_live(check: str, results: dict[str, Result]) -> None:
    result = results[check]
    if result.status == "skip":
        pytest.skip(result.summary)
    if result.status == "fail":
        pytest.fail(_text(result), pytrace=False)


def _text(result: Result) -> str:
    out = io.StringIO()
    show_failure([result], Console(file=out))
    return out.getvalue()

"""Runs the checks, many at once, each bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from stoker.smoke import gateway_log
from stoker.smoke.check import Check, CheckFailed, CheckSkipped, Result, Status, Trace
from stoker.smoke.plan import Plan
from stoker.smoke.report import Report
from stoker.smoke.ssh import AccessError

#: They wait for the network nearly all the time.
_WORKERS = 32

OnResult = Callable[[Result], None]


def run(plan: Plan, on_result: OnResult | None = None) -> Report:
    """All checks of a plan; ``on_result`` sees each result as it comes, from several threads. Closes the plan's connections."""
    started, clock = datetime.now(UTC), time.monotonic()
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        results: dict[str, Result] = {}
        for afterwards in (False, True):
            results |= _stage(pool, [check for check in plan.checks if check.afterwards is afterwards], on_result)
        answering = _Answering(plan, clock)
        ordered = [answering.named(results[check.id]) for check in plan.checks]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for what is under way
        plan.close()
    return Report(tuple(ordered), started, time.monotonic() - clock)


def run_check(check: Check) -> Result:
    """One check, timed. An exception that is not a verdict is a failure of its own, with its text."""
    trace = Trace()
    started = time.monotonic()

    def result(status: Status, summary: str, failure: CheckFailed | None = None) -> Result:
        verdict = Result(
            check,
            status,
            time.monotonic() - started,
            summary,
            tuple(trace.commands),
            request_ids=tuple(trace.request_ids),
        )
        return (
            replace(verdict, expected=failure.expected, found=failure.found, remedy=failure.remedy)
            if failure
            else verdict
        )

    try:
        return result("pass", check.run(trace))
    except CheckSkipped as skipped:
        return result("skip", str(skipped))
    except CheckFailed as failure:
        return result("fail", failure.found.partition("\n")[0], failure)
    except Exception as error:  # a check must not take the others with it
        fault = CheckFailed(
            "the check to run",
            f"{type(error).__name__}: {error}",
            "this is a fault of the smoke test itself: report it",
        )
        return result("fail", fault.found, fault)


def _stage(pool: ThreadPoolExecutor, checks: Sequence[Check], on_result: OnResult | None) -> dict[str, Result]:
    def one(check: Check) -> Result:
        result = run_check(check)
        if on_result is not None:
            on_result(result)
        return result

    futures: dict[str, Future[Result]] = {check.id: pool.submit(one, check) for check in _hosts_first(checks)}
    return {name: future.result() for name, future in futures.items()}


def _hosts_first(checks: Sequence[Check]) -> list[Check]:
    """The look at the containers comes before the requests that could make one restart."""
    return sorted(checks, key=lambda check: check.subject != check.host)


class _Answering:
    """Names the member that gave an answer, where the gateway's log can be read. Each log is read once."""

    def __init__(self, plan: Plan, since: float) -> None:
        self._plan, self._since = plan, since
        self._logs: dict[tuple[str, str], str] = {}

    def named(self, result: Result) -> Result:
        """A failure behind a gateway, with the instance that answered."""
        gateway = result.check.gateway
        if result.status != "fail" or gateway is None or not result.request_ids:
            return result
        found = sorted(set(gateway_log.answering(self._log(gateway), result.request_ids).values()) - {""})
        return (
            replace(result, found=f"{result.found}\nanswered by {', '.join(found)}, by the gateway's log")
            if found
            else result
        )

    def _log(self, gateway: tuple[str, str]) -> str:
        if gateway not in self._logs:
            host, container = gateway
            try:
                self._logs[gateway] = self._plan.witnesses[host].log(container, time.monotonic() - self._since)
            except (AccessError, CheckSkipped):
                self._logs[gateway] = ""
        return self._logs[gateway]
